// Package kafka delivers to Apache Kafka, one topic a stream. Brokers are spoken to with the protocol packages of
// segmentio/kafka-go; with client: franz-go the producing is left to that library's producer.
//
// What holds, with either client:
//
//   - Write returns when all is acknowledged by all in-sync replicas, or says what is not.
//   - No batch of a partition, and so no event of a key, is appended before an earlier one. kafka-go has one batch of each
//     partition in flight and retries it as it is; franz-go has up to five, and the brokers keep their order by sequence
//     numbers.
//   - A batch that was applied while its acknowledgement got lost is not written twice: not by a retry within a Write, and
//     not when Write gave up (write_timeout) and the host offers the same items again, for the batch is kept and sent as it
//     was, under the sequence number that the broker knows.
//
// A duplicate is still possible when the host offers something else than what was given back, when the process ends in
// the middle of a Write and nobody asks Missing, on a cluster that refuses producer ids, and when a broker has lost what it
// knew of the producer. It carries the same CloudEvents id, so that consumers can tell.
//
// Missing reads the topics and tells which items are not there, so that a restart or a takeover writes nothing twice.
//
// With a transactional id, which the host sets, sinks of several nodes take turns: Fence makes every partition's leader
// refuse what the earlier writer sent or still sends, by markers with a newer producer epoch, and the earlier writer's
// methods return core.ErrFenced from then on. No record is transactional: consumers need no isolation level, and none
// waits. A Log, an internal topic with one partition, is fenced with its sink.
//
// Partitions are chosen by murmur2 over the key as the Java client does, so that Kafka Streams and ksqlDB find our
// topics co-partitioned with their own.
package kafka
