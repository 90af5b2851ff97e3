package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/codec"
	"github.com/ctigate/ctigate/core/journal"
	"github.com/ctigate/ctigate/core/router"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

// journalDecoders make JSON of a record's data, by the record's kind.
var journalDecoders = map[uint8]func([]byte) (json.RawMessage, error){
	router.RecordInputs: func(b []byte) (json.RawMessage, error) {
		t, err := router.ReadTurn(b)
		if err != nil {
			return nil, err
		}
		return json.Marshal(t)
	},
	router.RecordItems: itemsJSON,
}

// itemsJSON is a turn's items, each with its stream and key and as structured CloudEvent.
func itemsJSON(b []byte) (json.RawMessage, error) {
	items, err := codec.ReadItems(b)
	if err != nil {
		return nil, err
	}
	type item struct {
		Stream core.Stream     `json:"stream"`
		Key    string          `json:"key"`
		Event  json.RawMessage `json:"event"`
	}
	out := make([]item, len(items))
	for i, it := range items {
		event, err := cloudevents.Structured(it)
		if err != nil {
			return nil, err
		}
		out[i] = item{it.Stream, it.Key, event}
	}
	return json.Marshal(out)
}

func newJournal() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Look into a journal: what it holds, whether it is sound, its records",
		Long: `Look into the folder of a journal. Nothing is changed there, so this works beside the gateway that writes it as
well as on what a dead one left.`,
		Example: `  ctigate journal ls /var/lib/ctigate/journal
  ctigate journal verify /var/lib/ctigate/journal`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJournalLs(), newJournalVerify(), newJournalExport())
	return cmd
}

func newJournalLs() *cobra.Command {
	return &cobra.Command{
		Use:   "ls DIR",
		Short: "List segments, cursors and checkpoints",
		Long: `List the segments with the records in them, the cursors with what they are behind, and the checkpoints. Every
segment is read, which takes about a second for each gigabyte.`,
		Example: "  ctigate journal ls /var/lib/ctigate/journal",
		Args:    cobra.ExactArgs(1),
		RunE: does(func(cmd *cobra.Command, args []string) error {
			v, err := journal.Inspect(args[0])
			if err != nil {
				return err
			}
			return listJournal(cmd.OutOrStdout(), v)
		}),
	}
}

func newJournalVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Read everything and say what is damaged",
		Long: `Read every segment, cursor and checkpoint and say what is damaged and which records are lost. Bytes after the
last record are no damage: they are being written, or a crash left them, and the gateway cuts them off when it starts.

Exits with 1 when something is damaged.`,
		Example: "  ctigate journal verify /var/lib/ctigate/journal && echo sound",
		Args:    cobra.ExactArgs(1),
		RunE: does(func(cmd *cobra.Command, args []string) error {
			v, err := journal.Inspect(args[0])
			if err != nil {
				return err
			}
			if err := verifyJournal(cmd.OutOrStdout(), v); err != nil {
				return err
			}
			if len(v.Damage) > 0 {
				return errSilent
			}
			return nil
		}),
	}
}

func newJournalExport() *cobra.Command {
	var from, to uint64
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Print records as JSON lines",
		Long: `Print records, one JSON object a line: seq, at, kind (1 what was received in a turn, 2 what it became), and
data; or, for a kind of record that is not known, its bytes as base64.

What is damaged or no longer kept is said on standard error, and the exit code is then 1.`,
		Example: `  ctigate journal export /var/lib/ctigate/journal --from 4000 --to 4100
  ctigate journal export /var/lib/ctigate/journal | jq -r '[.seq, .at, .kind] | @tsv'`,
		Args: cobra.ExactArgs(1),
		RunE: does(func(cmd *cobra.Command, args []string) error {
			defer endOnSignal(cmd)()
			v, err := journal.Inspect(args[0])
			if err != nil {
				return err
			}
			err = exportJournal(cmd.Context(), v, from, to, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if errors.Is(err, syscall.EPIPE) {
				return errSilent // the reader has had enough
			}
			return err
		}),
	}
	cmd.Flags().Uint64Var(&from, "from", 0, "first `SEQ` to print, the oldest that is kept when left out")
	cmd.Flags().Uint64Var(&to, "to", math.MaxUint64, "last `SEQ` to print, the newest when left out")
	cmd.Flags().Lookup("to").DefValue = ""
	return cmd
}

// listJournal prints the tables of ls.
func listJournal(out io.Writer, v *journal.View) error {
	segments := [][]string{{"SEGMENT", "FIRST", "LAST", "RECORDS", "SIZE", "FROM", "TO"}}
	for _, s := range v.Segments {
		segments = append(segments, []string{s.File, decimal(s.First), decimal(s.Last), decimal(s.Records), sized(s.Bytes), clock(s.FirstAt), clock(s.LastAt)})
	}
	cursors := [][]string{{"CURSOR", "DONE TO", "BEHIND", ""}}
	for _, name := range slices.Sorted(maps.Keys(v.Cursors)) {
		cursors = append(cursors, append([]string{printable(name), decimal(v.Cursors[name])}, behind(v, v.Cursors[name])...))
	}
	checkpoints := [][]string{{"CHECKPOINT", "SIZE"}}
	for _, c := range v.Checkpoints {
		checkpoints = append(checkpoints, []string{decimal(c.Seq), sized(c.Bytes)})
	}
	text := columns(segments) + columns(cursors) + columns(checkpoints)
	_, err := fmt.Fprintf(out, "%s%s in %s, %s with everything\n%s", text, held(v), count(uint64(len(v.Segments)), "segment"), sized(v.Bytes), troubles(v))
	return err
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// columns is a table with an empty line after it, its first column to the left and the others to the right; nothing
// when it has only a head.
func columns(rows [][]string) string {
	if len(rows) < 2 {
		return ""
	}
	wide := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := ""
		for i, cell := range r {
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line += cell + pad
			} else {
				line += "  " + pad + cell
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String() + "\n"
}

// behind is what a cursor at seq has before it, in records and in time.
func behind(v *journal.View, seq uint64) []string {
	if v.Last <= seq {
		return []string{"nothing", ""}
	}
	records, took := count(v.Last-max(seq, v.First-1), "record"), ""
	if at, last := v.At(max(seq+1, v.First)), v.Segments[len(v.Segments)-1].LastAt; at != 0 && last > at {
		took = (time.Duration(last-at) * time.Microsecond).Round(time.Millisecond).String()
	}
	if seq+1 < v.First {
		records = fmt.Sprintf("%s no longer kept, then %s", count(v.First-seq-1, "record"), records)
	}
	return []string{records, took}
}

// verifyJournal prints a line for each segment, and what is wrong.
func verifyJournal(out io.Writer, v *journal.View) error {
	damaged := map[string]bool{}
	for _, d := range v.Damage {
		damaged[d.File] = true
	}
	var b strings.Builder
	for _, s := range v.Segments {
		state := "ok     "
		if damaged[s.File] {
			state = "DAMAGED"
		}
		fmt.Fprintf(&b, "%s  %s  %s, %s\n", s.File, state, count(s.Records, "record"), sized(s.Bytes))
	}
	fmt.Fprintf(&b, "\n%s; %s\n%s", held(v), lost(v), troubles(v))
	_, err := io.WriteString(out, b.String())
	return err
}

func lost(v *journal.View) string {
	bytes, records := int64(0), uint64(0)
	for _, d := range v.Damage {
		bytes, records = bytes+d.Bytes, records+d.Lost()
	}
	if len(v.Damage) == 0 {
		return "nothing is damaged"
	}
	return fmt.Sprintf("%s damaged, %s lost", count(uint64(bytes), "byte"), count(records, "record"))
}

// troubles is a line for each damage.
func troubles(v *journal.View) string {
	var b strings.Builder
	for _, d := range v.Damage {
		fmt.Fprintf(&b, "DAMAGED  %s\n", printable(d.String()))
	}
	if v.Tail.Bytes > 0 {
		fmt.Fprintf(&b, "%s: %s after the last record: being written, or left by a crash\n", v.Tail.File, count(uint64(v.Tail.Bytes), "byte"))
	}
	return b.String()
}

func held(v *journal.View) string {
	if v.First == 0 {
		return "no records"
	}
	n := uint64(0)
	for _, s := range v.Segments {
		n += s.Records
	}
	return fmt.Sprintf("%s, %d to %d", count(n, "record"), v.First, v.Last)
}

// exported is a line of export.
type exported struct {
	Seq    uint64          `json:"seq"`
	At     string          `json:"at"`
	Kind   uint8           `json:"kind"`
	Data   json.RawMessage `json:"data,omitempty"`
	Base64 string          `json:"base64,omitempty"`
}

// exportJournal prints the records from from to to.
func exportJournal(ctx context.Context, v *journal.View, from, to uint64, out, errOut io.Writer) error {
	r, err := v.Read(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w := bufio.NewWriterSize(out, 64<<10)
	missed, err := exportRecords(ctx, r, to, w, errOut)
	if flushErr := w.Flush(); err == nil && flushErr != nil {
		err = fmt.Errorf("printing: %w", flushErr)
	}
	if err == nil && missed {
		err = errSilent
	}
	return err
}

// exportRecords reports whether records were missed, which it says on errOut.
func exportRecords(ctx context.Context, r *journal.Reader, to uint64, w *bufio.Writer, errOut io.Writer) (missed bool, err error) {
	for r.Seq() <= to {
		if ctx.Err() != nil {
			return missed, errInterrupted
		}
		rec, err := r.Next()
		switch {
		case err == io.EOF:
			return missed, nil
		case passedOver(err):
			missed = true
			fmt.Fprintln(errOut, "ctigate:", printable(err.Error()))
		case err != nil:
			return missed, err
		case rec.Seq <= to:
			if err := exportRecord(w, rec); err != nil {
				return missed, err
			}
		}
	}
	return missed, nil
}

// passedOver says that reading goes on after err.
func passedOver(err error) bool {
	var damage *journal.DamageError
	var gone *journal.GoneError
	return errors.As(err, &damage) || errors.As(err, &gone)
}

func exportRecord(w *bufio.Writer, rec journal.Record) error {
	line := exported{Seq: rec.Seq, At: rec.At.String(), Kind: rec.Kind}
	if decode := journalDecoders[rec.Kind]; decode != nil {
		data, err := decode(rec.Data)
		if err == nil {
			line.Data = data
		}
	}
	if line.Data == nil {
		line.Base64 = base64.StdEncoding.EncodeToString(rec.Data)
	}
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("printing record %d: %w", rec.Seq, err)
	}
	_, _ = w.Write(b)
	if err := w.WriteByte('\n'); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// count is n with its noun.
func count(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// sized is n bytes, readable.
func sized(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/(1<<10), "KiB"
	for _, u := range []string{"MiB", "GiB", "TiB"} {
		if f < 1000 {
			break
		}
		f, unit = f/(1<<10), u
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// clock is an instant to the second, in UTC.
func clock(t call.Time) string {
	if t == 0 {
		return "-"
	}
	return t.Std().Format("2006-01-02 15:04:05Z")
}
