// Package adaptertest is the conformance suite of adapters: what core.Adapter and core.Emitter promise each other,
// checked from outside over a simulated switch. An adapter, ours or yours, passes when Run does:
//
//	func TestConformance(t *testing.T) {
//		adaptertest.Run(t, adaptertest.Harness{
//			Open: func(t *testing.T, o adaptertest.Options) *adaptertest.Switch {
//				sim := startMySwitch(t, o.Refuse)
//				return &adaptertest.Switch{
//					Adapter: openMyAdapter(t, sim.Addr()),
//					Send:    sim.SendNumbered,
//					Number:  func(f core.Frame) (int, bool) { return numberIn(f.Raw) },
//					Cut:     sim.DropConnections,
//					Garbage: sim.SendBrokenFrame,
//					Close:   sim.Stop,
//				}
//			},
//			Secret: "the password that the configuration holds",
//		})
//	}
//
// The suite needs a simulated switch that can do four things: accept a login (or refuse it), send numbered native
// events, send something broken, and cut the link. Which native event carries the number is up to you: a channel name,
// a variable, a header. The events need not make sense as calls.
//
// What is checked, one subtest each: events arrive in order, after Up, with their bytes and the time they were
// received; a slow router slows the adapter and reorders nothing; the end of the context, a lost link, an error of the
// emitter, a refused login and an absent switch each end Run promptly and in the way the router relies on; what cannot
// be understood becomes a dead letter and not a panic; a second Run works like the first; no goroutine is left.
//
// Recorder, the emitter the suite uses, serves in an adapter's own tests too.
package adaptertest
