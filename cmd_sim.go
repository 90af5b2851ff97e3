package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/sim"
	"github.com/ctigate/ctigate/sim/trunk"
)

func newSim() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a switch, to try things against",
		Long: `Start a simulated switch that plays contact-centre calls (IVR, queue, answer, hold, transfer, abandon), the same
for the same seed, with faults to order. It speaks the switch's own protocols and is for trying out and for tests.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSimAsterisk(), newSimFreeSWITCH(), newSimSIP(), newSimPlay(), newSimScripts())
	return cmd
}

// simFlags are those of every simulated switch.
type simFlags struct {
	opt  sim.Options
	logs logFlags
}

func (f *simFlags) add(cmd *cobra.Command) {
	fl, o := cmd.Flags(), &f.opt
	fl.Uint64Var(&o.Seed, "seed", 1, "the same calls for the same `SEED`")
	fl.Float64Var(&o.Rate, "rate", 1, "new calls a second")
	fl.Float64Var(&o.Speed, "speed", 1, "how many times faster than life")
	fl.IntVar(&o.MaxCalls, "max-calls", 0, "start no more than `N` calls; 0 for no limit")
	fl.IntVar(&o.MaxActive, "max-active", 0, "have no more than `N` calls at once; 0 for no limit")
	fl.IntVar(&o.Agents, "agents", 0, "agent1 to agent`N`; 0 for as many as the calls need")
	fl.StringToIntVar(&o.Mix, "mix", nil, "`SCRIPT=WEIGHT,…` of the calls; see 'ctigate sim scripts'")
	fl.DurationVar(&o.ClockSkew, "clock-skew", 0, "how far the switch's clock is ahead")
	fl.DurationVar(&o.Latency, "latency", 0, "between something happening and its event being sent")
	fl.DurationVar(&o.Jitter, "jitter", 0, "up to so much more latency")
	fl.DurationVar(&o.Faults.DisconnectEvery, "disconnect-every", 0, "cut each connection, on average every `TIME`")
	fl.DurationVar(&o.Faults.GarbageEvery, "garbage-every", 0, "send bytes that are no event, on average every `TIME`")
	fl.DurationVar(&o.Faults.HalfFrameEvery, "half-frame-every", 0, "send half an event and cut the connection, on average every `TIME`")
	fl.IntVar(&o.Faults.SlowBytesPerSecond, "slow-bytes", 0, "deliver no more than `N` bytes a second; 0 for full speed")
	f.logs.add(cmd)
}

// simulated is a switch that plays until its context ends.
type simulated interface{ Wait() }

// play starts a switch, says where it listens, and waits for the end.
func (f *simFlags) play(cmd *cobra.Command, start func(context.Context, sim.Options) (simulated, string, error)) error {
	c := configs.Default().Log
	if err := f.logs.apply(&c); err != nil {
		return err
	}
	defer endOnSignal(cmd)()
	f.opt.Log = newLog(cmd.ErrOrStderr(), c, new(slog.LevelVar))
	s, where, err := start(cmd.Context(), f.opt)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), where); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	s.Wait()
	return nil
}

func newSimAsterisk() *cobra.Command {
	var f simFlags
	var ariAddr, amiAddr string
	cmd := &cobra.Command{
		Use:   "asterisk",
		Short: "Simulate an Asterisk 22: ARI and AMI",
		Example: `  ctigate sim asterisk
  ctigate sim asterisk --rate 10 --disconnect-every 30s --clock-skew 2s`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			return f.play(cmd, func(ctx context.Context, o sim.Options) (simulated, string, error) {
				s := sim.NewAsterisk(o)
				if err := s.Start(ctx, ariAddr, amiAddr); err != nil {
					return nil, "", err
				}
				where := fmt.Sprintf("Asterisk: ARI http://%s/ari, AMI %s, user %s", s.ARIAddr(), s.AMIAddr(), o.User)
				return s, where, nil
			})
		}),
	}
	cmd.Flags().StringVar(&ariAddr, "ari", "127.0.0.1:8088", "`HOST:PORT` of the ARI; port 0 picks one")
	cmd.Flags().StringVar(&amiAddr, "ami", "127.0.0.1:5038", "`HOST:PORT` of the AMI; empty for none")
	cmd.Flags().StringVar(&f.opt.User, "user", "gw", "user of ARI and AMI")
	cmd.Flags().StringVar(&f.opt.Password, "password", "gwsecret", "password of ARI and AMI")
	f.add(cmd)
	return cmd
}

func newSimFreeSWITCH() *cobra.Command {
	var f simFlags
	var addr string
	cmd := &cobra.Command{
		Use:   "freeswitch",
		Short: "Simulate a FreeSWITCH 1.10: the event socket",
		Example: `  ctigate sim freeswitch
  ctigate sim freeswitch --listen 127.0.0.1:0 --garbage-every 10s`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			return f.play(cmd, func(ctx context.Context, o sim.Options) (simulated, string, error) {
				s := sim.NewFreeSWITCH(o)
				if err := s.Start(ctx, addr); err != nil {
					return nil, "", err
				}
				return s, "FreeSWITCH: event socket " + s.Addr(), nil
			})
		}),
	}
	cmd.Flags().StringVar(&addr, "listen", "127.0.0.1:8021", "`HOST:PORT` of the event socket; port 0 picks one")
	cmd.Flags().StringVar(&f.opt.Password, "password", "ClueCon", "password of the event socket")
	f.add(cmd)
	return cmd
}

func newSimScripts() *cobra.Command {
	return &cobra.Command{
		Use:     "scripts",
		Short:   "List the call scripts, for --mix",
		Example: "  ctigate sim scripts",
		Args:    cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			mix := sim.DefaultMix()
			var b strings.Builder
			for _, name := range sim.Scripts() {
				fmt.Fprintf(&b, "%-28s weight %d unless told otherwise\n", name, mix[name])
			}
			b.WriteString("\nof the SIP trunk:\n")
			mix = trunk.DefaultMix()
			for _, name := range trunk.Scripts() {
				fmt.Fprintf(&b, "%-28s weight %d unless told otherwise\n", name, mix[name])
			}
			b.WriteString("\nof its audio, for --media:\n")
			mix = trunk.DefaultMedia()
			for _, name := range trunk.Profiles() {
				fmt.Fprintf(&b, "%-28s weight %d unless told otherwise\n", name, mix[name])
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), b.String())
			return err
		}),
	}
}

func newSimPlay() *cobra.Command {
	var f simFlags
	var addr, amiAddr string
	cmd := &cobra.Command{
		Use:   "play DIR",
		Short: "Serve a recorded trace as the switch it was recorded from",
		Long: `Serve the trace folder DIR over the protocols it was recorded from, once a reader is there: the ARI and AMI of an
Asterisk, or the event socket of a FreeSWITCH. Says when everything has been played, and ends with Ctrl-C.`,
		Example: `  ctigate sim play traces/asterisk/queue_answered --speed 10
  ctigate sim play traces/freeswitch/busy --listen 127.0.0.1:8021`,
		Args: cobra.ExactArgs(1),
		RunE: does(func(cmd *cobra.Command, args []string) error { return f.playTrace(cmd, args[0], addr, amiAddr) }),
	}
	fl := cmd.Flags()
	fl.StringVar(&addr, "listen", "127.0.0.1:0", "`HOST:PORT` of the ARI or the event socket; port 0 picks one")
	fl.StringVar(&amiAddr, "ami", "127.0.0.1:0", "`HOST:PORT` of the AMI; empty for none")
	fl.Float64Var(&f.opt.Speed, "speed", 1, "how many times faster than recorded; 0 for as fast as it is read")
	f.logs.add(cmd)
	return cmd
}

func (f *simFlags) playTrace(cmd *cobra.Command, dir, addr, amiAddr string) error {
	c := configs.Default().Log
	if err := f.logs.apply(&c); err != nil {
		return err
	}
	log := newLog(cmd.ErrOrStderr(), c, new(slog.LevelVar))
	defer endOnSignal(cmd)()
	p, err := sim.PlayTraceWith(dir, f.opt.Speed, sim.Options{Log: log})
	if err != nil {
		return err
	}
	if err := p.Start(cmd.Context(), addr, amiAddr); err != nil {
		return err
	}
	defer p.Close()
	where := "FreeSWITCH: event socket " + p.Addr() + ", password ClueCon"
	if p.Kind() == "asterisk" {
		where = fmt.Sprintf("Asterisk: ARI http://%s/ari, AMI %s, user gw, password gwsecret", p.Addr(), p.AMIAddr())
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), where); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	select {
	case <-p.Done():
		log.Info("the trace has been played to its end; Ctrl-C ends")
		<-cmd.Context().Done()
	case <-cmd.Context().Done():
	}
	return nil
}
