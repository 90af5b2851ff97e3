// Package core holds the contracts between the gateway's parts: Adapter, Sink, Enricher, their configurations, and the
// few types they share. It implements nothing.
package core
