// Package sinktest is the conformance suite of sinks: what core.Sink promises, checked from outside. A sink passes
// when Run does with a Harness that opens it and reads back what arrived at the far end.
//
//	func TestConformance(t *testing.T) {
//		sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
//			sink, far := openMySink(t)
//			return &sinktest.Harness{Sink: sink, Read: far.Read, Stop: far.Stop}
//		})
//	}
package sinktest
