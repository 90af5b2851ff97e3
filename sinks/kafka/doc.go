// Package kafka delivers to Apache Kafka, one topic a stream, on the protocol packages of segmentio/kafka-go.
//
// It owns its batching: each partition has at most one batch in flight, a batch that fails is retried as it is before
// anything later for that partition, and Write returns when all is acknowledged by all in-sync replicas. Batches carry
// a producer id and sequence numbers (an idempotent producer), so a batch that was applied while its acknowledgement
// got lost is not written twice by the retry. A duplicate is still possible when Write gave up (write_timeout) on a
// batch that the broker did apply, when the gateway restarts, and on a cluster that refuses producer ids; event ids
// are deterministic so that consumers can tell.
//
// Partitions are chosen by murmur2 over the key as the Java client does, so that Kafka Streams and ksqlDB find our
// topics co-partitioned with their own.
package kafka
