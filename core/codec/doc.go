// Package codec turns what the journal keeps for the sinks into bytes and back. The form is binary (call.Pack), compact
// and lossless: it is for this program alone, and says its version. What consumers read is JSON, made by sinks/cloudevents
// from the very same values.
package codec
