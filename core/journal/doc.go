// Package journal keeps records on disk in the order they were appended, so that a crash at any moment, a full disk or a
// flipped bit costs at most what the disk itself lost, and is told.
//
// A folder holds one journal:
//
//	lock                        flock of the process that writes
//	key                         the journal's key, in hexadecimal with a checksum
//	00000000000000000001.cti    segments, named for the seq of their first record
//	cursors.0, cursors.1        how far each reader is done, written in turn, a checksum on each line
//	00000000000000001234.ckpt   the newest two checkpoints, named for the last seq they include
//
// A segment is a header of 36 bytes and records without anything between them. All numbers are little-endian.
//
//	header   magic and version 8 "ctijrnl\x01", first seq 8, key 16, CRC-32C of these 4
//	record   mark 4, length of the data 4, seq 8, at 8 (µs since 1970), kind 1, zero 3, CRC-32C of the data 4,
//	         CRC-32C of the 32 bytes before, begun with (CRC-32C of key and first seq) XOR the offset in the file 4; then
//	         the data
//
// The seqs in a segment follow each other by one. Since a record's checksum covers the key, which is random, and where
// the record stands, bytes inside a record's data that look like a record are never taken for one: not even when the
// record around them is damaged and the reader looks for the next one byte by byte.
//
// Where two segments hold the same seq, the later one is right: it was begun because the end of the earlier one could
// not be taken back, or not be made durable.
package journal
