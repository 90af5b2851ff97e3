// Command ctigate reads call events from Asterisk and FreeSWITCH, makes one canonical call model of them, and
// publishes it to Kafka or files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	tuneCollector()
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// tuneCollector lets the heap grow to three times what is alive before garbage is collected, unless GOGC says
// otherwise. What is alive, the calls under way, is small and stays for minutes; nearly everything else is the garbage
// of messages. So half as many collections cost a few megabytes.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	return report(cmd, err, errOut)
}

// usageError is a command line, or a configuration, that cannot be used.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errSilent ends a command whose output says already what is wrong.
var errSilent = errors.New("failed")

// report prints err, a line for each fault, and returns the exit code for it.
func report(cmd *cobra.Command, err error, errOut io.Writer) int {
	var faults configs.Faults
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSilent):
		return exitFailed
	case errors.As(err, &faults):
		for _, f := range faults {
			fmt.Fprintln(errOut, "ctigate: reading configuration:", printable(f.String()))
		}
		return exitUsage
	}
	fmt.Fprintln(errOut, "ctigate:", printable(strings.ReplaceAll(err.Error(), "\n", "; ")))
	if errors.As(err, &usage) || !started(cmd) {
		fmt.Fprintf(errOut, "ctigate: see '%s --help'\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

const startedKey = "started"

// started says whether the command got as far as doing something; before that, what went wrong is the command line.
func started(cmd *cobra.Command) bool { return cmd.Annotations[startedKey] != "" }

// does wraps a command's work so that report can tell the command line's faults from the work's.
func does(work func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if cmd.Annotations == nil {
			cmd.Annotations = map[string]string{}
		}
		cmd.Annotations[startedKey] = "yes"
		return work(cmd, args)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ctigate",
		Short: "Call events from Asterisk and FreeSWITCH, in one model, to Kafka",
		Long: `ctigate reads call events from Asterisk (ARI, AMI) and FreeSWITCH (event socket), makes one
canonical call model of them, and publishes it as CloudEvents to Kafka, files or standard output.

Exit codes: 0 done, 1 something failed (or a check did), 2 the command line or the configuration is wrong.`,
		Example: `  ctigate demo                        see everything at work, with simulated switches
  ctigate check -c ctigate.yaml       try a configuration against the live systems
  ctigate run -c ctigate.yaml         run the gateway`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(newRun(), newDemo(), newCheck(), newRecord(), newReplay(), newJournal(), newClusterCommand(), newDrain(), newSim(), newConfig(), newVersion())
	return root
}
