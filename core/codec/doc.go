// Package codec turns what the journal keeps into bytes and back: items for the sinks, and frames of the adapters. The
// form is binary (call.Pack), compact and lossless: it is for this program alone, and says its version. What consumers
// read is JSON, made by sinks/cloudevents from the very same values.
package codec
