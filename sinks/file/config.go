package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/ctigate/ctigate/core"
)

// Config is the settings of a file sink. Start from NewConfig: it holds the defaults.
type Config struct {
	Dir         string        `yaml:"dir"`          // made if missing, for its owner only
	Streams     []core.Stream `yaml:"streams"`      // what to keep; default all
	RotateBytes int64         `yaml:"rotate_bytes"` // a file is closed before it grows beyond; default 256 MiB
	RotateAge   time.Duration `yaml:"rotate_age"`   // or when its first line is older; default 24h
	Keep        int           `yaml:"keep"`         // closed files kept of each stream, 0 for all; default 30
}

var known = []core.Stream{
	core.StreamEvents, core.StreamCalls, core.StreamRecords, core.StreamMedia, core.StreamSources, core.StreamStale,
	core.StreamDeadLetter, core.StreamRaw,
}

// NewConfig returns the defaults. Dir must be set.
func NewConfig() *Config {
	return &Config{Streams: slices.Clone(known), RotateBytes: 256 << 20, RotateAge: 24 * time.Hour, Keep: 30}
}

// Validate returns every fault, each naming its field.
func (c *Config) Validate() []error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: needed: the folder to write into"))
	}
	if len(c.Streams) == 0 {
		errs = append(errs, errors.New("streams: at least one is needed, or remove the sink"))
	}
	for i, s := range c.Streams {
		if !slices.Contains(known, s) {
			errs = append(errs, fmt.Errorf("streams[%d]: %q is unknown: use %v", i, s, known))
		}
	}
	if c.RotateBytes < 4096 {
		errs = append(errs, fmt.Errorf("rotate_bytes: %d: use at least 4096", c.RotateBytes))
	}
	if c.RotateAge < time.Second {
		errs = append(errs, fmt.Errorf("rotate_age: %s: use at least 1s", c.RotateAge))
	}
	if c.Keep < 0 {
		errs = append(errs, fmt.Errorf("keep: %d: use 0 for all, or a number of files", c.Keep))
	}
	return errs
}

// Open makes the folder, keeps other sinks out of it, and opens, and if need be repairs, the files that are there already.
// A folder that cannot be used is a permanent error; one that another process uses is not.
func (c *Config) Open(_ context.Context, env core.Env) (core.Sink, error) {
	s, err := c.open(env)
	if err != nil {
		return nil, fmt.Errorf("opening the file sink: %w", err)
	}
	return s, nil
}

func (c *Config) open(env core.Env) (*Sink, error) {
	log := env.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	lock, err := c.claim(log)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(c.Dir); err == nil && shared(info) {
		log.Warn("others than its owner may change the folder", "dir", c.Dir, "mode", info.Mode().Perm().String())
	}
	s := &Sink{cfg: c, log: log, lock: lock, files: make(map[core.Stream]*streamFile), now: time.Now, create: create}
	for _, stream := range c.Streams {
		if _, err := os.Lstat(s.path(stream)); errors.Is(err, fs.ErrNotExist) {
			continue // opened when the first item comes
		}
		if _, err := s.file(stream); err != nil {
			return nil, errors.Join(err, s.release())
		}
	}
	return s, nil
}
