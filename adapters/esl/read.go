package esl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

var errOverflow = errors.New("more events arrived while the snapshot was taken than may wait; raise queue")

// read drains the socket until the link ends. It is the only reader, and ends with the conn.
func (c *conn) read() {
	defer close(c.done)
	for {
		f, err := c.fr.next()
		if err == nil {
			err = c.handle(f)
		} else {
			err = c.faulty(err)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// faulty puts a frame that could not be read into the dead-letter stream, and says whether reading can go on.
func (c *conn) faulty(err error) error {
	var fe *FrameError
	if !errors.As(err, &fe) {
		if errors.Is(err, io.EOF) {
			return errors.New("FreeSWITCH closed the event-socket link")
		}
		return fmt.Errorf("reading from the event socket: %w", err)
	}
	if errors.Is(err, net.ErrClosed) && c.cause() != nil {
		return fe // we hung up inside a frame: there is nothing wrong with it
	}
	if len(fe.Raw) > 0 {
		if err := c.deliver(arrival{body: fe.Raw, received: call.At(time.Now()), dead: fe.Error()}); err != nil {
			return err
		}
	}
	if fe.InSync {
		return nil
	}
	return fe
}

// handle sends a frame where it belongs.
func (c *conn) handle(f frame) error {
	switch f.kind {
	case typeJSON, typePlain:
		return c.event(arrival{body: f.body, json: f.kind == typeJSON, received: f.received})
	case typeReply:
		c.answer(reply{text: f.reply, received: f.received})
	case typeResponse:
		c.answer(reply{text: string(f.body[:min(len(f.body), 4096)]), body: f.body, received: f.received})
	case typeAuthRequest:
		return c.greet()
	case typeRejection:
		return rejected(f.body)
	case typeDisconnect:
		if !f.linger {
			return fmt.Errorf("FreeSWITCH ended the event-socket link: %q", shorten(bytes.TrimSpace(f.body)))
		}
	case typeLog:
		c.count("log_frames", 1)
	default:
		c.count("unknown_frames", 1)
		raw := append(bytes.Clone(f.raw), f.body...)
		return c.deliver(arrival{body: raw, received: f.received, dead: fmt.Sprintf("reading event-socket frame: Content-Type %q is not known", shorten([]byte(f.kind)))})
	}
	return nil
}

func rejected(body []byte) error {
	return core.Permanent(fmt.Errorf("FreeSWITCH refused this gateway's address (%q): name a list that allows it in <param name=\"apply-inbound-acl\"> of event_socket.conf, add the address to that list in acl.conf, then run reloadacl and reload mod_event_socket", shorten(bytes.TrimSpace(body))))
}

func (c *conn) greet() error {
	select {
	case <-c.hello:
		return errors.New("FreeSWITCH asked for a login a second time")
	default:
		close(c.hello)
		return nil
	}
}

// answer gives a reply to the command that has waited longest.
func (c *conn) answer(r reply) {
	c.mu.Lock()
	var first chan reply
	if len(c.waiting) > 0 {
		first = c.waiting[0]
		c.waiting = c.waiting[1:]
	}
	c.mu.Unlock()
	if first == nil {
		c.count("unexpected_replies", 1)
		return
	}
	first <- r // never blocks: room for one, and sent once
}

// event queues an event, and hands over the result if it ends one of our jobs.
func (c *conn) event(a arrival) error {
	c.lastEvent.Set() // not a.received: it may have waited in our buffer
	if string(headerOf(a.body, a.json, "Event-Name")) == "BACKGROUND_JOB" {
		c.finishJob(a)
	}
	return c.deliver(a)
}

func (c *conn) finishJob(a arrival) {
	id := string(headerOf(a.body, a.json, "Job-UUID"))
	c.mu.Lock()
	result, ours := c.jobs[id]
	delete(c.jobs, id)
	c.mu.Unlock()
	if ours {
		result <- jobOutput(a.body, a.json) // never blocks: room for one, and sent once
	}
}

// deliver queues a, waiting for room. Waiting is what slows FreeSWITCH down when the router is slow. Once the link has
// ended nothing waits: what is left was read before, and is no more than the read buffer holds.
func (c *conn) deliver(a arrival) error {
	switch c.q.push(a) {
	case accepted:
		return nil
	case overflow:
		return errOverflow
	}
	c.count("queue_full", 1)
	c.stalls.Add(1)
	c.blocked.Store(true)
	defer func() {
		c.lastEvent.Set() // silence is counted from here
		c.blocked.Store(false)
	}()
	for c.q.push(a) == full {
		<-c.q.room
		if c.cause() != nil {
			wake(c.q.room) // for the next of the buffer
			c.q.pushLast(a)
			return nil
		}
	}
	return nil
}

// jobOutput is the text a BACKGROUND_JOB event carries.
func jobOutput(body []byte, json bool) string {
	if json {
		return jsonBody(body)
	}
	_, after, _ := strings.Cut(string(body), "\n\n")
	return after
}
