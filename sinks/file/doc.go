// Package file keeps items as structured CloudEvents, one JSON object a line, in one file a stream.
//
// The file being written has a name that never changes (events.jsonl), so that tail -F follows it. When it is large or
// old enough it is renamed after the time of its rotation (events-20060102T150405.000000Z.jsonl), and the oldest of
// those are deleted. Write returns after fsync. A line torn by a crash is cut off when the file is opened again: it was
// never acknowledged, so it comes once more.
package file
