package configs

import (
	"fmt"
	"reflect"

	"github.com/goccy/go-yaml"
)

// Changed names the top-level keys (and those below log) in which b differs from a, as printed: a rotated secret is no
// difference.
func Changed(a, b *Config) ([]string, error) {
	x, err := a.sections()
	if err != nil {
		return nil, err
	}
	y, err := b.sections()
	if err != nil {
		return nil, err
	}
	var keys []string
	for i := range x {
		if !reflect.DeepEqual(x[i], y[i]) {
			keys = append(keys, fmt.Sprint(x[i].Key))
		}
	}
	return keys, nil
}

// sections is the printed configuration by key, always with the same keys in the same order.
func (c *Config) sections() (yaml.MapSlice, error) {
	m, err := c.tree()
	if err != nil {
		return nil, err
	}
	out := yaml.MapSlice{{Key: "log.level", Value: c.Log.Level}, {Key: "log.format", Value: c.Log.Format}}
	for _, key := range []string{"switches", "sinks", "journal", "cluster", "enrich", "freshness", "telemetry", "drain_timeout", "raw_passthrough"} {
		item := yaml.MapItem{Key: key}
		for _, x := range m {
			if x.Key == key {
				item = x
			}
		}
		out = append(out, item)
	}
	return out, nil
}
