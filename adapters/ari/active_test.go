package ari

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// Recorded forms of the events that make and keep an answered call of two parties: CALLNUM is the call's number, 871
// and 872 are its channels.
const (
	activeCaller = `{"id":"CALLNUM.871","name":"PJSIP/trunk-CALLNUM","state":"STATE","protocol_id":"CALLNUM-s8j13jj4xhszc14q@lab","caller":{"name":"Alice","number":"+14155550100"},"connected":{"name":"","number":"1000"},"accountcode":"","dialplan":{"context":"from-trunk","exten":"1000","priority":1,"app_name":"Dial","app_data":"PJSIP/agent1,20"},"creationtime":"2026-11-22T12:54:30.207+0000","language":"en","channelvars":{"CHANNEL(linkedid)":"CALLNUM.871","CHANNEL(audioreadformat)":"ulaw","CHANNEL(audionativeformat)":"(ulaw)","IVR_PATH":""}}`
	activeAgent  = `{"id":"CALLNUM.872","name":"PJSIP/agent1-CALLNUM","state":"STATE","protocol_id":"CALLNUM-18be09d5-f6bd-4c32-8d17-55bd0dd9b1c5","caller":{"name":"","number":"1000"},"connected":{"name":"Alice","number":"+14155550100"},"accountcode":"","dialplan":{"context":"internal","exten":"","priority":1,"app_name":"AppDial","app_data":"(Outgoing Line)"},"creationtime":"2026-11-22T12:54:30.511+0000","language":"en","channelvars":{"CHANNEL(linkedid)":"CALLNUM.871","CHANNEL(audioreadformat)":"ulaw","CHANNEL(audionativeformat)":"(ulaw)","IVR_PATH":""}}`
	activeTail   = `,"timestamp":"2026-11-22T12:54:3CLOCK+0000","asterisk_id":"02:fc:00:00:00:01","application":"gateway"}`
)

func render(form string, i int, state, at string) []byte {
	return []byte(strings.NewReplacer("CALLNUM", fmt.Sprintf("%07d", i), "STATE", state, "CLOCK", at).Replace(form))
}

// begin feeds the events of an answered call.
func begin(n *normalizer, t *call.Tracker, i int, now call.Time) {
	bridge := `"bridge":{"id":"CALLNUM-ba14","technology":"simple_bridge","bridge_type":"mixing","bridge_class":"basic","creator":"","name":"","channels":[]}`
	for _, x := range []struct{ form, state, at string }{
		{`{"type":"ChannelCreated","channel":` + activeCaller + activeTail, "Ring", "0.207"},
		{`{"type":"ChannelDialplan","channel":` + activeCaller + activeTail, "Ring", "0.208"},
		{`{"type":"ChannelCreated","channel":` + activeAgent + activeTail, "Down", "0.511"},
		{`{"type":"Dial","dialstatus":"","forward":"","dialstring":"agent1","caller":` + activeCaller + `,"peer":` + activeAgent + activeTail, "Down", "0.512"},
		{`{"type":"ChannelStateChange","channel":` + activeAgent + activeTail, "Ringing", "0.564"},
		{`{"type":"ChannelStateChange","channel":` + activeAgent + activeTail, "Up", "1.065"},
		{`{"type":"ChannelStateChange","channel":` + activeCaller + activeTail, "Up", "1.066"},
		{`{"type":"ChannelEnteredBridge",` + bridge + `,"channel":` + activeAgent + activeTail, "Up", "1.067"},
		{`{"type":"ChannelEnteredBridge",` + bridge + `,"channel":` + activeCaller + activeTail, "Up", "1.068"},
	} {
		feed(n, t, render(x.form, i, x.state, x.at), now)
	}
}

func feed(n *normalizer, t *call.Tracker, raw []byte, now call.Time) int {
	f, err := n.event(raw, now)
	if err != nil {
		panic(fmt.Sprintf("%v: %s", err, raw))
	}
	made := 0
	for _, o := range f.Observations {
		made += len(t.Apply(call.SwitchRef{ID: "bench"}, o))
	}
	return made
}

// load is one event form whose call number can be written over in place.
type load struct {
	raw []byte
	at  []int
}

func newLoad(form string, at string) load {
	l := load{raw: render(form, 7777777, "Up", at)}
	for i := 0; ; {
		k := bytes.Index(l.raw[i:], []byte("7777777"))
		if k < 0 {
			return l
		}
		l.at, i = append(l.at, i+k), i+k+7
	}
}

// of returns the event for call i; it is valid until the next call.
func (l load) of(i int) []byte {
	var d [7]byte
	for k := 6; k >= 0; k-- {
		d[k] = byte('0' + i%10)
		i /= 10
	}
	for _, p := range l.at {
		copy(l.raw[p:], d[:])
	}
	return l.raw
}

// BenchmarkActive measures a native event's cost, and a call's heap, with few and with many calls in progress. The
// events come as they do in the recordings: of ten, eight set variables, one is noise and one says something; each is
// of a random call.
func BenchmarkActive(b *testing.B) {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(200)) // as the gateway does
	}
	for _, calls := range []int{100, 50_000} {
		b.Run(strconv.Itoa(calls), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			n, t := newNormalizer(options{}, func(string, int) {}), call.NewTracker(call.Options{})
			for i := range calls {
				begin(n, t, i, call.Second)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if t.Active() != calls {
				b.Fatalf("%d calls active", t.Active())
			}
			varset := newLoad(`{"variable":"BRIDGEPEER","value":"PJSIP/agent1-00000364","type":"ChannelVarset","channel":`+activeCaller+activeTail, "2.000")
			noise := newLoad(`{"type":"ChannelConnectedLine","channel":`+activeAgent+activeTail, "2.001")
			digit := newLoad(`{"type":"ChannelDtmfReceived","digit":"4","duration_ms":160,"channel":`+activeCaller+activeTail, "2.002")
			r, now, canonical := rand.New(rand.NewPCG(1, 2)), 2*call.Second, 0
			i := 0
			for b.Loop() {
				now += call.Millisecond
				switch which, c := i%10, r.IntN(calls); which {
				case 0:
					raw := digit.of(c)
					copy(raw[bytes.Index(raw, []byte(`"duration_ms":`))+14:], fmt.Appendf(nil, "%03d", 100+i/10%900)) // another digit each time
					canonical += feed(n, t, raw, now)
				case 5:
					canonical += feed(n, t, noise.of(c), now)
				default:
					canonical += feed(n, t, varset.of(c), now)
				}
				i++
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(calls), "heap-B/call")
			b.ReportMetric(float64(canonical)/float64(i), "canonical/event")
		})
	}
}
