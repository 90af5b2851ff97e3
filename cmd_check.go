package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
)

func newCheck() *cobra.Command {
	var path string
	var timeout time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Try a configuration against the live switches and sinks",
		Long: `Validate the configuration, then probe every switch and sink it names and print what works, what does not,
and what to do about it. Nothing is changed on them.

Exits with 1 when something failed, 2 when the configuration is wrong. A warning is not a failure.`,
		Example: `  ctigate check -c ctigate.yaml
  ctigate check -c ctigate.yaml --json | jq 'select(.level != "ok")'`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			c, err := load(path)
			if err != nil {
				return err
			}
			defer endOnSignal(cmd)()
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			findings := probeAll(ctx, probes(c), cmd.ErrOrStderr())
			if asJSON {
				err = writeFindings(cmd.OutOrStdout(), findings)
			} else {
				err = printFindings(cmd.OutOrStdout(), findings, widthOf(cmd.OutOrStdout()))
			}
			if err == nil && failed(findings) {
				err = errSilent
			}
			return err
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "longest `TIME` for all probes together")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each finding")
	return cmd
}

// probe checks one switch or sink.
type probe struct {
	name string
	run  func(context.Context) []core.Finding
}

func probes(c *configs.Config) []probe {
	var all []probe
	env := core.Env{Log: discard}
	for _, s := range c.Switches {
		all = append(all, probe{s.ID, func(ctx context.Context) []core.Finding { return checkSwitch(ctx, s, env) }})
	}
	for _, s := range c.Sinks {
		all = append(all, probe{s.Name, func(ctx context.Context) []core.Finding { return checkSink(ctx, s, env) }})
	}
	return all
}

func checkSwitch(ctx context.Context, s configs.Switch, env core.Env) []core.Finding {
	a, err := s.Config.Open(s.ID, env)
	if err != nil {
		return []core.Finding{{Subject: s.ID, What: "settings", Level: core.Fail, Detail: err.Error(), Fix: "mend the settings of this switch"}}
	}
	return check(ctx, s.ID, a)
}

// checkSink asks the settings when they can check themselves: opening a sink may create what it needs.
func checkSink(ctx context.Context, s configs.Sink, env core.Env) []core.Finding {
	if _, ok := s.Config.(core.Checker); ok {
		return check(ctx, s.Name, s.Config)
	}
	sink, err := s.Config.Open(ctx, env)
	if err != nil {
		return []core.Finding{{Subject: s.Name, What: s.Kind, Level: core.Fail, Detail: err.Error(), Fix: "mend the settings of this sink"}}
	}
	defer sink.Close(ctx)
	return check(ctx, s.Name, sink)
}

func check(ctx context.Context, name string, x any) []core.Finding {
	c, ok := x.(core.Checker)
	if !ok {
		return []core.Finding{{Subject: name, What: "settings", Level: core.OK, Detail: "valid; there is nothing to probe"}}
	}
	found := c.Check(ctx)
	for i := range found {
		found[i].Subject = name
	}
	return found
}

// probeAll runs the probes at once and returns their findings in order. What is still going on after two seconds is
// named on progress.
func probeAll(ctx context.Context, all []probe, progress io.Writer) []core.Finding {
	results := make([][]core.Finding, len(all))
	var mu sync.Mutex
	done := make([]bool, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() {
			found := p.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			results[i], done[i] = found, true
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-finished:
			var flat []core.Finding
			for _, r := range results {
				flat = append(flat, r...)
			}
			return flat
		case <-tick.C:
			mu.Lock()
			fmt.Fprintln(progress, "ctigate: still probing", strings.Join(pending(all, done), ", "))
			mu.Unlock()
		}
	}
}

func pending(all []probe, done []bool) []string {
	var names []string
	for i, p := range all {
		if !done[i] {
			names = append(names, p.name)
		}
	}
	return names
}

func failed(all []core.Finding) bool {
	for _, f := range all {
		if f.Level == core.Fail {
			return true
		}
	}
	return false
}

func writeFindings(out io.Writer, all []core.Finding) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, f := range all {
		err := enc.Encode(struct {
			Subject string     `json:"subject"`
			What    string     `json:"what"`
			Level   core.Level `json:"level"`
			Detail  string     `json:"detail"`
			Fix     string     `json:"fix,omitempty"`
		}{f.Subject, f.What, f.Level, f.Detail, f.Fix})
		if err != nil {
			return fmt.Errorf("printing findings: %w", err)
		}
	}
	return nil
}

// printFindings prints a table; what to do stands under what was found. Lines are broken at width, 0 for never.
func printFindings(out io.Writer, all []core.Finding, width int) error {
	rows := [][3]string{{"SUBJECT", "WHAT", "RESULT"}}
	for _, f := range all {
		level := string(f.Level)
		if f.Level == core.Fail {
			level = "FAIL"
		}
		rows = append(rows, [3]string{f.Subject, oneLine(f.What), level})
	}
	var wide [3]int
	for _, r := range rows {
		for i := range wide {
			wide[i] = max(wide[i], utf8.RuneCountInString(r[i])+2)
		}
	}
	left := wide[0] + wide[1] + wide[2]
	var b strings.Builder
	for i, r := range rows {
		for k, w := range wide {
			b.WriteString(r[k] + strings.Repeat(" ", w-utf8.RuneCountInString(r[k])))
		}
		detail := []string{"DETAIL"}
		if i > 0 {
			detail = wrapDetail(all[i-1], width-left)
		}
		b.WriteString(strings.Join(detail, "\n"+strings.Repeat(" ", left)) + "\n")
	}
	b.WriteString("\n" + verdict(all) + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// wrapDetail is what was found and what to do, in lines of width runes, but never less than 30.
func wrapDetail(f core.Finding, width int) []string {
	lines := wrapWords(oneLine(f.Detail), width)
	if f.Fix != "" {
		for i, l := range wrapWords(oneLine(f.Fix), width-2) {
			mark := "  "
			if i == 0 {
				mark = "→ "
			}
			lines = append(lines, mark+l)
		}
	}
	return lines
}

func wrapWords(text string, width int) []string {
	if width < 30 || utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(lines, line)
}

// widthOf is the width of a terminal, 0 for anything else.
func widthOf(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}

func verdict(all []core.Finding) string {
	n := map[core.Level]int{}
	for _, f := range all {
		n[f.Level]++
	}
	return fmt.Sprintf("%d ok, %d to look at, %d failed", n[core.OK], n[core.Warn], n[core.Fail])
}

// oneLine is s in one line that is safe to show.
func oneLine(s string) string { return printable(strings.Join(strings.Fields(s), " ")) }

// printable is s with a dot for every rune that does not print: what a switch or broker says must not command the
// terminal it is shown on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}
