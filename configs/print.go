package configs

import (
	"bytes"
	"fmt"
	"regexp"

	"github.com/goccy/go-yaml"

	"github.com/ctigate/ctigate/core/cluster"
)

// Marshal writes the effective configuration as YAML that Load accepts: defaults filled in, secrets by where they
// come from, passwords inside URLs blotted out.
func (c *Config) Marshal() ([]byte, error) {
	tree, err := c.tree()
	if err != nil {
		return nil, err
	}
	raw, err := yaml.MarshalWithOptions(tree, yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("printing configuration: %w", err)
	}
	return userinfo.ReplaceAll(raw, []byte("://[redacted]@")), nil
}

// tree is the configuration as ordered mappings.
func (c *Config) tree() (yaml.MapSlice, error) {
	top := yaml.MapSlice{}
	var switches, sinks []yaml.MapSlice
	for _, s := range c.Switches {
		m, err := inline(yaml.MapSlice{{Key: "id", Value: s.ID}, {Key: "kind", Value: s.Kind}}, s.Config)
		if err != nil {
			return nil, fmt.Errorf("printing switch %s: %w", s.ID, err)
		}
		switches = append(switches, m)
	}
	for _, s := range c.Sinks {
		head := yaml.MapSlice{{Key: "kind", Value: s.Kind}, {Key: "name", Value: s.Name}, {Key: "when_full", Value: s.WhenFull}}
		m, err := inline(head, s.Config)
		if err != nil {
			return nil, fmt.Errorf("printing sink %s: %w", s.Name, err)
		}
		sinks = append(sinks, m)
	}
	top = append(top, yaml.MapItem{Key: "switches", Value: switches}, yaml.MapItem{Key: "sinks", Value: sinks})
	rest, err := inline(nil, struct {
		Journal        Journal
		Cluster        *cluster.Config `yaml:",omitempty"`
		Enrich         Enrich
		Freshness      Freshness
		Telemetry      Telemetry
		Log            Log
		DrainTimeout   string `yaml:"drain_timeout"`
		RawPassthrough bool   `yaml:"raw_passthrough"`
	}{c.Journal, c.Cluster, c.Enrich, c.Freshness, c.Telemetry, c.Log, c.DrainTimeout.String(), c.RawPassthrough})
	if err != nil {
		return nil, fmt.Errorf("printing configuration: %w", err)
	}
	return append(top, rest...), nil
}

// userinfo is the user and password inside a URL.
var userinfo = regexp.MustCompile(`://[^/@\s"']*:[^/@\s"']*@`)

// inline appends the keys of v, in the order of its fields, less those that are null.
func inline(to yaml.MapSlice, v any) (yaml.MapSlice, error) {
	raw, err := yaml.Marshal(v)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(bytes.TrimSpace(raw), []byte("{}")) {
		return to, nil
	}
	var m yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(raw, &m, yaml.UseOrderedMap()); err != nil {
		return nil, err
	}
	return append(to, prune(m)...), nil
}

// prune drops nulls, at every depth.
func prune(m yaml.MapSlice) yaml.MapSlice {
	var out yaml.MapSlice
	for _, item := range m {
		if inner, ok := item.Value.(yaml.MapSlice); ok {
			item.Value = prune(inner)
			if len(inner) > 0 && len(prune(inner)) == 0 {
				continue
			}
		}
		if item.Value != nil {
			out = append(out, item)
		}
	}
	return out
}
