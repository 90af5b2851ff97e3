package main

import (
	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/adapters/ari"
	"github.com/ctigate/ctigate/adapters/esl"
	"github.com/ctigate/ctigate/adapters/sip"
	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/sinks/file"
	"github.com/ctigate/ctigate/sinks/kafka"
	"github.com/ctigate/ctigate/sinks/stdout"
)

// kinds are the plugins this program has. Another program has one more by adding a line.
func kinds() configs.Kinds {
	return configs.Kinds{
		Switches: map[string]func() core.AdapterConfig{
			"ari": func() core.AdapterConfig { return ari.NewConfig() },
			"esl": func() core.AdapterConfig { return esl.NewConfig() },
			"sip": func() core.AdapterConfig { return sip.NewConfig() },
		},
		Sinks: map[string]func() core.SinkConfig{
			"kafka":  func() core.SinkConfig { return kafka.NewConfig() },
			"file":   func() core.SinkConfig { return newFileSink() },
			"stdout": func() core.SinkConfig { return stdout.NewConfig() },
		},
		Folder: sinkFolder,
	}
}

// sinkFolder is the folder that a sink must have for itself.
func sinkFolder(s core.SinkConfig) string {
	if f, ok := s.(*file.Config); ok {
		return f.Dir
	}
	return ""
}

// fileSinkDir is where the file sink writes unless told otherwise.
const fileSinkDir = "./ctigate-data"

func newFileSink() *file.Config {
	c := file.NewConfig()
	c.Dir = fileSinkDir
	return c
}

// switchKinds maps a configured kind to what the model calls such a switch.
var switchKinds = map[string]string{"ari": "asterisk", "esl": "freeswitch", "sip": "sip"}

// configFlag adds -c, which is needed.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration `FILE` (YAML)")
	_ = cmd.MarkFlagRequired("config")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// load reads the configuration; a file that cannot be read is a usage error too.
func load(path string) (*configs.Config, error) {
	c, err := configs.Load(path, kinds())
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}
