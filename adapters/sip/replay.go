package sip

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ctigate/ctigate/adapters/sip/capture"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// ReplayOptions tune Replay; the zero value replays as a link with the default configuration would.
type ReplayOptions struct {
	PBX                []string // addresses of switches, as Config.PBX
	View               string
	CorrelationHeaders []string
	Variables          []string // headers to carry into attributes
}

// Replay reads a capture (pcap or pcapng, gzipped or not), or the one in a folder, and emits what a live session would
// have, by the packets' times alone: no clock, so two replays emit the same.
func Replay(path string, opt ReplayOptions, out core.Emitter) error {
	file, err := captureIn(path)
	if err != nil {
		return err
	}
	cfg := (&Config{PBX: opt.PBX, View: opt.View, CorrelationHeaders: opt.CorrelationHeaders, Variables: opt.Variables}).withDefaults()
	if err := out.Up(core.Instance{Kind: Kind}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e := newEngine(cfg, out)
	_, err = capture.ReadFile(ctx, file, capture.Options{MaxMessage: cfg.MaxMessageBytes}, func(p *wire.Packet) {
		e.packet(p)
		if e.err != nil {
			cancel()
		}
	})
	if e.err != nil {
		return e.err
	}
	if err != nil {
		return fmt.Errorf("replaying %s: %w", path, err)
	}
	e.advance(e.now + leaveWithin + 2*call.Second) // parties that had passed their call on have left
	return e.err
}

// captureIn is path, or the one capture file in it.
func captureIn(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("opening capture: %w", err)
	}
	if !info.IsDir() {
		return path, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("opening capture: %w", err)
	}
	var found []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".gz")
		if ext := filepath.Ext(name); ext == ".pcap" || ext == ".pcapng" {
			found = append(found, filepath.Join(path, e.Name()))
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("opening capture: %s holds %d .pcap or .pcapng files: name the one", path, len(found))
	}
	return found[0], nil
}
