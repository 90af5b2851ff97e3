package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/ctigate/ctigate/core"
	kafkago "github.com/segmentio/kafka-go"
)

// Error codes that kafka-go has no name for, or another.
const (
	codeInvalidProducerEpoch = kafkago.InvalidProducerEpoch
	codeDuplicateSequence    = kafkago.DuplicateSequenceNumber
)

// answer is what to do about one partition's answer to a produce request.
type answer int

const (
	accepted   answer = iota // acknowledged by all in-sync replicas
	again                    // the same bytes again, after a look at the metadata and a pause
	resequence               // again under a new producer epoch: the broker lost or never had our sequence
	tooLarge                 // split, or set aside
	refused                  // trying again will not help until somebody changes something; no fault of the records
)

// judge sorts error codes (https://kafka.apache.org/protocol#protocol_error_codes).
func judge(err error) answer {
	var code kafkago.Error
	switch {
	case err == nil:
		return accepted
	case core.IsPermanent(err):
		return refused
	case !errors.As(err, &code):
		return again // the connection broke, or timed out
	}
	switch code {
	case codeDuplicateSequence:
		return accepted
	case kafkago.OutOfOrderSequenceNumber, kafkago.UnknownProducerId, codeInvalidProducerEpoch, kafkago.InvalidProducerIDMapping,
		kafkago.ProducerFenced:
		return resequence
	case kafkago.MessageSizeTooLarge, kafkago.RecordListTooLarge, kafkago.InvalidRecord:
		return tooLarge
	case kafkago.Unknown, kafkago.BrokerNotAvailable, kafkago.ReplicaNotAvailable, kafkago.InvalidTransactionState:
		return again // the last: a marker of our own is under way
	}
	if code.Temporary() {
		return again
	}
	return refused
}

// external is a permanent error seen from an item: not the item's fault, and so not permanent.
type external struct{ err error }

func (e external) Error() string { return e.err.Error() }

// Is and As find all that the error wraps but its mark as permanent.
func (e external) Is(target error) bool { return errors.Is(e.err, target) }

func (e external) As(target any) bool {
	if _, mark := target.(**core.PermanentError); mark {
		return false
	}
	return errors.As(e.err, target)
}

// topicError explains an error code about a topic, and marks as permanent what only an administrator can mend.
func topicError(topic string, code kafkago.Error, doing string) error {
	err := fmt.Errorf("topic %s: %s: %w", topic, doing, code)
	switch code {
	case kafkago.TopicAuthorizationFailed, kafkago.ClusterAuthorizationFailed:
		err = fmt.Errorf("topic %s: %s: not allowed for this user; grant it Describe, Write and, with create_topics, Create: %w",
			topic, doing, code)
	case kafkago.InvalidReplicationFactor:
		err = fmt.Errorf("topic %s: %s: set replication_factor to at most the number of brokers: %w", topic, doing, code)
	case kafkago.UnknownTopicOrPartition:
		err = fmt.Errorf("topic %s: %s: it does not exist; create it, or set create_topics: true: %w", topic, doing, code)
	}
	if !code.Temporary() {
		return core.Permanent(err)
	}
	return err
}

// detail is a broker's own words in parentheses.
func detail(message string) string {
	if message == "" {
		return ""
	}
	return " (" + message + ")"
}

// connectError says what a failed connection most likely means.
func connectError(addr string, c *Config, doing string, err error) error {
	var code kafkago.Error
	var unknownCA x509.UnknownAuthorityError
	var host x509.HostnameError
	var record tls.RecordHeaderError
	hint, permanent := "", false
	switch {
	case errors.As(err, &code) && (code == kafkago.SASLAuthenticationFailed || code == kafkago.IllegalSASLState):
		hint, permanent = "authentication was refused: check sasl.username, sasl.password and sasl.mechanism", true
	case errors.As(err, &code) && code == kafkago.UnsupportedSASLMechanism:
		hint, permanent = fmt.Sprintf("the broker does not offer sasl.mechanism %s", c.SASL.Mechanism), true
	case errors.As(err, &unknownCA):
		hint, permanent = "its certificate is signed by an authority we do not know: set tls.ca_file", true
	case errors.As(err, &host):
		hint, permanent = "its certificate is for another name: set tls.server_name", true
	case errors.As(err, &record):
		hint, permanent = "it does not speak TLS on this port: use its TLS port, or remove tls", true
	case errors.Is(err, errSASLHangUp):
		hint = "it hung up during the login: it may be starting or stopping, or refuse sasl.username, sasl.password or sasl.mechanism"
	case errors.Is(err, errHandshake) && (isEOF(err) || errors.Is(err, context.DeadlineExceeded)):
		hint = "it may not speak TLS on this port"
	case strings.Contains(err.Error(), "tls: "):
		hint = "it may want a client certificate: check tls.cert_file and tls.key_file"
	case isEOF(err) && !c.TLS.Enabled:
		hint = "it hung up at once: it may expect TLS (tls.enabled: true) or SASL on this port"
	case isEOF(err) && c.SASL.Mechanism == "":
		hint = "it hung up: it may want a client certificate (tls.cert_file) or SASL"
	}
	if hint != "" {
		err = fmt.Errorf("%s: %w", hint, err)
	}
	err = fmt.Errorf("%s kafka broker %s: %w", doing, addr, err)
	if permanent {
		return core.Permanent(err)
	}
	return err
}

func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// hungUp reports whether the other side ended the connection.
func hungUp(err error) bool {
	return isEOF(err) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// backoff doubles from 20 ms to 2 s, with jitter.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{20 * time.Millisecond} }

// sleep waits, or returns the context's error.
func (b *backoff) sleep(ctx context.Context) error {
	t := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer t.Stop()
	b.next = min(2*b.next, 2*time.Second)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
