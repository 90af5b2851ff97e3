package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/sim/trunk"
)

// simSIPFlags are those of the simulated trunk.
type simSIPFlags struct {
	opt    trunk.Options
	faults float64
	length time.Duration
	pcap   string
	fast   bool
	logs   logFlags
}

func newSimSIP() *cobra.Command {
	var f simSIPFlags
	cmd := &cobra.Command{
		Use:   "sip",
		Short: "Simulate a SIP trunk with a PBX and phones, and real RTP",
		Long: `Start a simulated SIP trunk on 127.0.0.1: a carrier, a PBX and agents' phones, which talk SIP and RTP with each other,
with loss, jitter and other faults on some calls. Every packet is mirrored as HEPv3 to --hep, as a capture agent beside
the PBX would do, and written to --pcap.

The RTP's pace is that of life whatever --speed is. With --fast, only the pcap file is written, without waiting.`,
		Example: `  ctigate sim sip --hep 127.0.0.1:9060 --hep-key secret
  ctigate sim sip --fast --pcap trunk.pcap --max-calls 50 && ctigate replay --kind sip trunk.pcap
  ctigate sim sip --mix hold_retrieve=1 --media lossy=1,one_way=1 --retransmit 0.3`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return usageError{err}
			}
			defer endOnSignal(cmd)()
			return f.play(cmd)
		}),
	}
	f.add(cmd)
	return cmd
}

func (f *simSIPFlags) add(cmd *cobra.Command) {
	fl, o := cmd.Flags(), &f.opt
	fl.StringVar(&o.HEP, "hep", "127.0.0.1:9060", "`HOST:PORT` (UDP) to mirror every packet to as HEPv3; empty for none")
	fl.StringVar(&o.HEPKey, "hep-key", "", "authentication `KEY` of the HEP packets")
	fl.StringVar(&f.pcap, "pcap", "", "`FILE` to write every packet to")
	fl.BoolVar(&f.fast, "fast", false, "only write --pcap, without sockets and without waiting")
	fl.DurationVar(&f.length, "for", 0, "end by itself after `TIME`, such as 30s")
	fl.Uint64Var(&o.Seed, "seed", 1, "the same calls for the same `SEED`")
	fl.Float64Var(&o.Rate, "rate", 0.5, "new calls a second")
	fl.Float64Var(&o.Speed, "speed", 1, "how many times faster than life people ring, wait and talk")
	fl.IntVar(&o.MaxCalls, "max-calls", 0, "end after `N` calls; 0 for no limit")
	fl.IntVar(&o.MaxActive, "max-active", 100, "have no more than `N` calls at once")
	fl.IntVar(&o.Agents, "agents", 20, "agent1 to agent`N`")
	fl.StringToIntVar(&o.Mix, "mix", nil, "`SCRIPT=WEIGHT,…` of the calls; see 'ctigate sim scripts'")
	fl.StringToIntVar(&o.Media, "media", nil, "`PROFILE=WEIGHT,…` of what is wrong with the audio; see 'ctigate sim scripts'")
	fl.Float64Var(&f.faults, "faults", 0, "`SHARE` of calls, 0 to 1, for each of the faults below that is not given")
	for name, x := range f.shares() {
		fl.Float64Var(x.to, name, 0, x.what)
	}
	f.logs.add(cmd)
}

type share struct {
	to   *float64
	what string
}

// shares are the faults of SIP by flag.
func (f *simSIPFlags) shares() map[string]share {
	x := &f.opt.Faults
	return map[string]share{
		"retransmit":  {&x.Retransmit, "`SHARE` of calls with requests repeated because the answer is late"},
		"duplicate":   {&x.Duplicate, "`SHARE` of calls with datagrams that come twice"},
		"swap":        {&x.Swap, "`SHARE` of calls whose 180 comes after the 200"},
		"lost-ack":    {&x.LostACK, "`SHARE` of calls whose first ACK is lost"},
		"spoofed-bye": {&x.SpoofedBYE, "`SHARE` of calls with a BYE from a stranger"},
		"malformed":   {&x.Malformed, "`SHARE` of calls with something before them that is no SIP"},
	}
}

func (f *simSIPFlags) check(cmd *cobra.Command) error {
	for name, x := range f.shares() {
		if !cmd.Flags().Changed(name) {
			*x.to = f.faults
		}
		if *x.to < 0 || *x.to > 1 {
			return fmt.Errorf("--%s %v: give a share of calls from 0 to 1", name, *x.to)
		}
	}
	switch {
	case f.fast && f.pcap == "":
		return errors.New("--fast writes a file: give --pcap FILE")
	case f.fast && f.length <= 0 && f.opt.MaxCalls <= 0:
		return errors.New("--fast would never end: give --max-calls or --for")
	case f.opt.Rate <= 0 || f.opt.Rate > 1000:
		return fmt.Errorf("--rate %v: give more than 0 and at most 1000 calls a second", f.opt.Rate)
	}
	return nil
}

func (f *simSIPFlags) play(cmd *cobra.Command) (err error) {
	c := configs.Default().Log
	if err := f.logs.apply(&c); err != nil {
		return err
	}
	f.opt.Log = newLog(cmd.ErrOrStderr(), c, new(slog.LevelVar))
	if f.pcap == "" {
		return f.live(cmd)
	}
	file, err := os.Create(f.pcap)
	if err != nil {
		return fmt.Errorf("creating the pcap file: %w", err)
	}
	w := bufio.NewWriterSize(file, 1<<16)
	defer func() { err = errors.Join(err, w.Flush(), file.Close()) }()
	if f.fast {
		return f.render(cmd, w)
	}
	f.opt.Capture = w
	return f.live(cmd)
}

// render writes the file alone.
func (f *simSIPFlags) render(cmd *cobra.Command, w io.Writer) error {
	file, err := trunk.NewPcap(w)
	if err != nil {
		return err
	}
	n := 0
	truths, err := trunk.Render(f.opt, f.length, func(p trunk.Packet) error {
		n++
		if err := cmd.Context().Err(); err != nil {
			return fmt.Errorf("writing %s: %w", f.pcap, err)
		}
		return file.Write(p)
	})
	if err == nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d packets of %d calls that ended\n", f.pcap, n, len(truths))
	}
	return err
}

// live plays through sockets until it is told to end.
func (f *simSIPFlags) live(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if f.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.length)
		defer cancel()
	}
	t := trunk.New(f.opt)
	if err := t.Start(ctx); err != nil {
		return err
	}
	defer t.Close()
	if _, err := io.WriteString(cmd.OutOrStdout(), f.intro(t)); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-t.Done():
	}
	return f.sum(cmd, t)
}

// intro says where the trunk is and how to have a gateway hear it.
func (f *simSIPFlags) intro(t *trunk.Trunk) string {
	carrier, pbx, phones := t.Addrs()
	var b strings.Builder
	fmt.Fprintf(&b, "SIP trunk: carrier %s, PBX %s, phones %s\n", carrier, pbx, phones)
	if f.opt.HEP == "" {
		return b.String()
	}
	fmt.Fprintf(&b, "HEPv3 goes to %s (UDP). For a gateway that hears it, ctigate.yaml:\n\n"+
		"switches:\n  - id: trunk\n    kind: sip\n    pbx: [%q]\n    correlation_headers: [X-Call-Ref]\n"+
		"    hep:\n      listen: %s\n", f.opt.HEP, pbx, f.opt.HEP)
	if f.opt.HEPKey != "" {
		fmt.Fprintf(&b, "      key: {env: CTIGATE_HEP_KEY}\n\nand export CTIGATE_HEP_KEY=%q before ctigate run.\n", f.opt.HEPKey)
	}
	return b.String()
}

// sum says what was played.
func (f *simSIPFlags) sum(cmd *cobra.Command, t *trunk.Trunk) error {
	s := t.Stats()
	line := fmt.Sprintf("%d calls of which %d ended; sent %d SIP messages, %d RTP and %d RTCP packets",
		s.Started, s.Ended, s.Packets[trunk.SIP], s.Packets[trunk.RTP], s.Packets[trunk.RTCP])
	if s.Unheard > 0 {
		line += fmt.Sprintf("; %s refused %d of them: nobody listened there", f.opt.HEP, s.Unheard)
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
