package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core/cluster"
	"github.com/ctigate/ctigate/core/telemetry"
)

func newClusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look at a cluster of gateways",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newClusterStatus())
	return cmd
}

func newClusterStatus() *cobra.Command {
	var path string
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "status -c FILE",
		Short: "Who owns the switches, and who stands by",
		Long: `Ask the gateway that runs here with FILE who owns the switches and who stands by, or, where none runs, ask Kafka.
Exits with 1 when nobody owns the switches.`,
		Example: `  ctigate cluster status -c ctigate.yaml
  ctigate cluster status -c ctigate.yaml --json | jq '.units[].owner'`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			c, err := loadClustered(path)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			s, err := clusterStatus(ctx, c)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(s)
			} else {
				err = printCluster(cmd.OutOrStdout(), s)
			}
			if err == nil && s.Units[theUnit].Owner == "" {
				err = errSilent
			}
			return err
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "longest `TIME` to wait for an answer")
	return cmd
}

func newDrain() *cobra.Command {
	var path string
	var undo bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "drain -c FILE",
		Short: "Hand the switches over to another node of the cluster",
		Long: `Have the gateway that runs here with FILE hand its switches over: it publishes what it has taken, lets go, and
stands by as a node that wants nothing, until --undo or a restart. The command ends when the cluster knows. Nothing is
lost and nothing published twice. For an upgrade: drain, restart with the new version, then the next node.`,
		Example: `  ctigate drain -c ctigate.yaml
  ctigate drain -c ctigate.yaml --undo`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command, _ []string) error {
			c, err := loadClustered(path)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			order, done := "drain", "drained: this node stands by and wants nothing"
			if undo {
				order, done = "undrain", "this node takes part again"
			}
			if err := askGateway(ctx, c, http.MethodPost, "/cluster/"+order, nil); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), done)
			return nil
		}),
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&undo, "undo", false, "take part again")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "longest `TIME` for handing over")
	return cmd
}

// loadClustered reads a configuration that has a cluster.
func loadClustered(path string) (*configs.Config, error) {
	c, err := load(path)
	if err == nil && c.Cluster == nil {
		err = usageError{fmt.Errorf("%s has no cluster section: this gateway is alone", path)}
	}
	return c, err
}

// clusterStatus asks the gateway of this machine, or, where none runs, Kafka.
func clusterStatus(ctx context.Context, c *configs.Config) (s cluster.Status, err error) {
	err = askGateway(ctx, c, http.MethodGet, "/cluster", &s)
	if !errors.Is(err, errNoGateway) {
		return s, err
	}
	k := clusterKafka(c)
	if s, err = cluster.Inspect(ctx, memberOptions(c, k, discard)); err != nil {
		return s, fmt.Errorf("no gateway runs here, and asking Kafka: %w", err)
	}
	return s, nil
}

var errNoGateway = errors.New("no gateway answers here")

// askGateway asks the running gateway at its telemetry address. answer, when not nil, gets the JSON of it.
func askGateway(ctx context.Context, c *configs.Config, method, path string, answer any) error {
	listen := c.Telemetry.Listen
	if listen == "off" {
		return fmt.Errorf("telemetry.listen is off: the running gateway cannot be asked; set it to an address on loopback")
	}
	host, port, _ := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port) + path
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set(telemetry.OrderHeader, "ctigate "+buildVersion())
	if !c.Telemetry.Token.IsZero() {
		token, err := c.Telemetry.Token.Reveal()
		if err != nil {
			return fmt.Errorf("telemetry.token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoGateway, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	switch {
	case err != nil:
		return fmt.Errorf("asking the gateway at %s: %w", url, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("asking the gateway at %s: %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("asking the gateway at %s: it is no ctigate of this version: %w", url, err)
	}
	return nil
}

// printCluster prints s for people.
func printCluster(out io.Writer, s cluster.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "group %s, generation %d, %s\n", s.Group, s.Generation, s.State)
	if s.Problem != "" {
		fmt.Fprintf(w, "trouble: %s\n", s.Problem)
	}
	fmt.Fprintln(w, "\nNODE\tROLE\tMEMBER")
	for _, m := range s.Members {
		role := "standing by"
		switch {
		case m.Node == s.Units[theUnit].Owner && m.ID == s.Units[theUnit].Member:
			role = "owner"
		case m.Drained:
			role = "drained"
		}
		if m.Node == s.Node {
			role += ", this node"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", m.Node, role, m.ID)
	}
	if len(s.Members) == 0 {
		fmt.Fprintln(w, "nobody\t\t")
	}
	if len(s.Peers) > 0 {
		fmt.Fprintln(w, "\nPEER\tADDRESS\tLINK\tLAST HEARD")
	}
	for _, p := range s.Peers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.ID, p.Address, p.State, heard(p.AgeMS))
	}
	return w.Flush()
}

func heard(ms int64) string {
	if ms < 0 {
		return "never"
	}
	return (time.Duration(ms) * time.Millisecond).String() + " ago"
}

// clusterHandlers answer for a node of a cluster at the telemetry address.
func (g *gateway) clusterHandlers() map[string]http.HandlerFunc {
	if g.cfg.Cluster == nil {
		return nil
	}
	with := func(f func(ctx context.Context, x *clustered) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !g.isOpen() {
				http.Error(w, "the gateway is starting", http.StatusServiceUnavailable)
				return
			}
			answer, err := f(r.Context(), g.cluster)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			telemetry.WriteJSON(w, http.StatusOK, answer)
		}
	}
	return map[string]http.HandlerFunc{
		"GET /cluster": with(func(context.Context, *clustered) (any, error) { return g.cluster.status(), nil }),
		"POST /cluster/drain": with(func(ctx context.Context, x *clustered) (any, error) {
			return x.status(), x.member.Drain(ctx)
		}),
		"POST /cluster/undrain": with(func(_ context.Context, x *clustered) (any, error) {
			x.member.Undrain()
			return x.status(), nil
		}),
	}
}

func (x *clustered) status() cluster.Status {
	s := x.member.Status()
	s.Peers = x.link.Peers()
	return s
}
