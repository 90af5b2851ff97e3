package main

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ctigate/ctigate/deploy/chaos/oracle"
)

// reader reads every topic of the gateway from its beginning, as a consumer of its own that no fault touches.
type reader struct {
	cl     *kgo.Client
	prefix string
	done   chan struct{}

	mu    sync.Mutex
	parts map[string]*readPart // topic/partition
	note  func(*oracle.Message)
}

type readPart struct {
	next     int64
	messages []oracle.Message
}

// streams are those that the reader reads.
var streams = []string{"events", "calls", "records", "media", "sources", "stale", "deadletter"}

// newReader reads the topics with prefix from the brokers at seeds; past maps addresses that they advertise to ones that
// no proxy is before.
func newReader(seeds []string, prefix string, past func(string) string) (*reader, error) {
	r := &reader{prefix: prefix, parts: map[string]*readPart{}, done: make(chan struct{})}
	var err error
	r.cl, err = kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeRegex(), kgo.ConsumeTopics("^"+regexp.QuoteMeta(prefix)+"("+strings.Join(streams, "|")+`)\.v1$`),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMaxAge(time.Second), kgo.MetadataMinAge(100*time.Millisecond), kgo.FetchMaxWait(250*time.Millisecond),
		kgo.KeepControlRecords(), kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, past(addr))
		}), kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }))
	if err != nil {
		return nil, fmt.Errorf("making the oracle's reader: %w", err)
	}
	go r.run()
	return r, nil
}

func (r *reader) run() {
	defer close(r.done)
	for {
		f := r.cl.PollFetches(context.Background())
		if f.IsClientClosed() {
			return
		}
		r.take(f)
	}
}

func (r *reader) take(f kgo.Fetches) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.EachRecord(func(rec *kgo.Record) {
		at := rec.Topic + "/" + strconv.Itoa(int(rec.Partition))
		p := r.parts[at]
		if p == nil {
			p = &readPart{}
			r.parts[at] = p
		}
		if rec.Offset < p.next {
			return // read again after a broker's restart
		}
		p.next = rec.Offset + 1
		if !rec.Attrs.IsControl() {
			m := r.message(rec)
			p.messages = append(p.messages, m)
			if r.note != nil {
				r.note(&m)
			}
		}
	})
}

// logAppendTime says that a record's timestamp is the broker's.
const logAppendTime = 1

func (rd *reader) message(r *kgo.Record) oracle.Message {
	m := oracle.Message{Stream: strings.TrimSuffix(strings.TrimPrefix(r.Topic, rd.prefix), ".v1"), Partition: r.Partition, Offset: r.Offset,
		Key: string(r.Key), Value: r.Value}
	if r.Attrs.TimestampType() == logAppendTime {
		m.Appended = r.Timestamp
	}
	if r.ProducerID >= 0 {
		m.Writer = fmt.Sprintf("%d/%d", r.ProducerID, r.ProducerEpoch)
	}
	for _, h := range r.Headers {
		switch h.Key {
		case "ce_id":
			m.ID = string(h.Value)
		case "ce_type":
			m.Type = strings.TrimSuffix(strings.TrimPrefix(string(h.Value), "cti."), ".v1")
		case "ce_sequence":
			m.Seq, _ = strconv.ParseUint(string(h.Value), 10, 64) // what is no number shows as a hole
		}
	}
	return m
}

// messages is what was read so far, partition by partition.
func (r *reader) messages() (all []oracle.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for at := range r.parts {
		names = append(names, at)
	}
	slices.Sort(names)
	for _, at := range names {
		all = append(all, r.parts[at].messages...)
	}
	return all
}

// catchUp reads to the present ends of all partitions.
func (r *reader) catchUp(ctx context.Context) error {
	ends, err := r.ends(ctx)
	for err == nil && r.behind(ends) {
		if err = ctx.Err(); err != nil {
			return fmt.Errorf("reading the topics to their ends: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (r *reader) behind(ends map[string]int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, end := range ends {
		if p := r.parts[at]; end > 0 && (p == nil || p.next < end) {
			return true
		}
	}
	return false
}

// ends asks for the end of every partition.
func (r *reader) ends(ctx context.Context) (map[string]int64, error) {
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, r.cl)
	if err != nil {
		return nil, fmt.Errorf("asking for the topics: %w", err)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for _, t := range meta.Topics {
		if t.Topic == nil || !r.follows(*t.Topic) {
			continue
		}
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = *t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = p.Partition, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	return offsets(ctx, r.cl, req)
}

// follows reports whether the reader reads the topic.
func (r *reader) follows(topic string) bool {
	s, ok := strings.CutPrefix(topic, r.prefix)
	return ok && slices.Contains(streams, strings.TrimSuffix(s, ".v1"))
}

func offsets(ctx context.Context, cl *kgo.Client, req *kmsg.ListOffsetsRequest) (map[string]int64, error) {
	ends := map[string]int64{}
	for _, shard := range cl.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, fmt.Errorf("asking for the topics' ends: %w", shard.Err)
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return nil, fmt.Errorf("asking for the end of %s/%d: error %d", t.Topic, p.Partition, p.ErrorCode)
				}
				ends[t.Topic+"/"+strconv.Itoa(int(p.Partition))] = p.Offset
			}
		}
	}
	return ends, nil
}

// watch calls note with every message that is read from now on.
func (r *reader) watch(note func(*oracle.Message)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note = note
}

func (r *reader) close() {
	r.cl.Close()
	<-r.done
}
