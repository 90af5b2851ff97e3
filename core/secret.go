package core

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// Secret is a value that never prints: String, GoString, JSON, YAML and slog all give "[redacted]". It is configured
// as {env: NAME} or {file: PATH}, never inline, and read when Reveal is called, so a rotated file is picked up.
type Secret struct {
	Env  string
	File string

	value string // set by NewSecret only
}

const redacted = "[redacted]"

// NewSecret wraps a value that is already at hand, for tests and for the demo.
func NewSecret(v string) Secret { return Secret{value: v} }

// IsZero reports whether nothing is configured.
func (s Secret) IsZero() bool { return s == Secret{} }

// Reveal returns the value. The error says where it was looked for.
func (s Secret) Reveal() (string, error) {
	switch {
	case s.Env != "":
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return "", fmt.Errorf("reading secret: environment variable %s is not set", s.Env)
		}
		return v, nil
	case s.File != "":
		b, err := os.ReadFile(s.File)
		if err != nil {
			return "", fmt.Errorf("reading secret: %w", err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return s.value, nil
}

// UnmarshalYAML accepts {env: NAME} or {file: PATH} and refuses an inline value without repeating it.
func (s *Secret) UnmarshalYAML(unmarshal func(any) error) error {
	var m map[string]string
	if err := unmarshal(&m); err != nil {
		return fmt.Errorf("a secret is written {env: NAME} or {file: PATH}, not inline")
	}
	for k, v := range m {
		switch k {
		case "env":
			s.Env = v
		case "file":
			s.File = v
		default:
			return fmt.Errorf("unknown key %q in a secret: use env or file", k)
		}
	}
	if (s.Env == "") == (s.File == "") {
		return fmt.Errorf("a secret needs exactly one of env and file")
	}
	return nil
}

// String is always redacted.
func (s Secret) String() string { return redacted }

// GoString is always redacted.
func (s Secret) GoString() string { return redacted }

// MarshalText is always redacted.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML shows where the secret comes from, never what it is.
func (s Secret) MarshalYAML() (any, error) {
	switch {
	case s.Env != "":
		return map[string]string{"env": s.Env}, nil
	case s.File != "":
		return map[string]string{"file": s.File}, nil
	case s.value != "":
		return redacted, nil
	}
	return nil, nil
}

// LogValue is always redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
