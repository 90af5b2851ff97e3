package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Work with the configuration",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigPrint())
	return cmd
}

func newConfigPrint() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "print -c FILE",
		Short: "Print the effective configuration, without secrets",
		Long: `Print the configuration as the gateway understands it: defaults filled in, secrets shown only by where they
are read from. The output is a valid configuration file.`,
		Example: "  ctigate config print -c ctigate.yaml",
		Args:    cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			c, err := load(path)
			if err != nil {
				return err
			}
			raw, err := c.Marshal()
			if err != nil {
				return err
			}
			if c.FileSinkByDefault {
				fmt.Fprintln(cmd.OutOrStdout(), "# no sink is configured: the file sink stands in")
			}
			_, err = cmd.OutOrStdout().Write(raw)
			return err
		}),
	}
	configFlag(cmd, &path)
	return cmd
}
