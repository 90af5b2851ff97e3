package ari

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of what an AMI peer may send.
const (
	maxLine    = 16 << 10
	maxFields  = 1000
	maxMessage = 1 << 20
)

var (
	errLineTooLong    = errors.New("a line is longer than 16 KiB")
	errTooManyFields  = errors.New("a message has more than 1000 fields")
	errMessageTooLong = errors.New("a message is longer than 1 MiB")
)

// readMessage reads one AMI message: "Key: value" lines up to an empty one. Lines may end in CRLF or LF; one without
// a colon becomes a field without a key. The end of the stream between messages is io.EOF. With any other error the
// message's raw holds what was read; the stream cannot be read on after it.
func readMessage(r *bufio.Reader) (message, error) {
	raw := make([]byte, 0, 512)
	for n := 0; ; n++ {
		line, err := readLine(r)
		raw = append(raw, line...)
		switch {
		case err == io.EOF && len(raw) == 0:
			return message{}, io.EOF
		case err == io.EOF:
			return message{raw: raw}, fmt.Errorf("a message is cut off: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return message{raw: raw}, err
		case len(raw) > maxMessage:
			return message{raw: raw}, errMessageTooLong
		case len(trimEOL(line)) == 0 && n == 0: // stray empty lines between messages
			raw, n = raw[:0], -1
		case len(trimEOL(line)) == 0:
			return parseMessage(raw, n), nil
		case n == maxFields:
			return message{raw: raw}, errTooManyFields
		}
	}
}

// readLine reads up to and with the line feed. With an error it returns what came before it.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine {
		return line, errLineTooLong
	}
	return line, err
}

// parseMessage splits raw, which ends in an empty line, into n fields.
func parseMessage(raw []byte, n int) message {
	m := message{raw: raw, fields: make([]field, 0, n)}
	text := string(raw)
	for range n {
		line, rest, _ := strings.Cut(text, "\n")
		text = rest
		m.fields = append(m.fields, parseField(strings.TrimSuffix(line, "\r")))
	}
	return m
}

func parseField(line string) field {
	key, value, ok := strings.Cut(line, ":")
	if !ok {
		return field{value: line}
	}
	return field{key: key, value: strings.TrimPrefix(value, " ")}
}

func trimEOL(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}
