package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// tenure is a writer's time, from its first message anywhere to its last.
type tenure struct {
	writer      string
	first, last *Message
}

// writers: in a partition a writer that another has followed writes no more; and over all, none writes after a later
// one has begun, by the time of appending.
func (j *judge) writers() {
	now, gone, all := map[string]*Message{}, map[string]*Message{}, map[string]*tenure{}
	for i := range j.c.Messages {
		m := &j.c.Messages[i]
		if m.Writer == "" {
			continue
		}
		at := fmt.Sprintf("%s/%d ", m.Stream, m.Partition)
		if p := now[at]; p != nil && p.Writer != m.Writer {
			gone[at+p.Writer] = m
		}
		if by := gone[at+m.Writer]; by != nil {
			j.violate(Owners, []*Message{by, m}, "%s: writer %s was followed by %s at %s and writes again", m.At(), m.Writer, by.Writer, by.At())
		}
		now[at] = m
		if m.Appended.IsZero() {
			all[m.Writer] = nil
			continue
		}
		t := all[m.Writer]
		if t == nil {
			t = &tenure{m.Writer, m, m}
			all[m.Writer] = t
		}
		if m.Appended.Before(t.first.Appended) {
			t.first = m
		}
		if m.Appended.After(t.last.Appended) {
			t.last = m
		}
	}
	j.rep.Writers = len(all)
	j.overlaps(all)
}

// overlap is how much two tenures may share by their times: the answer of a broker and the clock's grain.
const overlap = 5 * time.Millisecond

func (j *judge) overlaps(all map[string]*tenure) {
	var list []*tenure
	for _, t := range all {
		if t != nil {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *tenure) int {
		return cmp.Or(a.first.Appended.Compare(b.first.Appended), cmp.Compare(a.writer, b.writer))
	})
	for i := 1; i < len(list); i++ {
		a, b := list[i-1], list[i]
		if a.last.Appended.After(b.first.Appended.Add(overlap)) {
			j.violate(Owners, []*Message{b.first, a.last}, "writer %s has begun at %s; writer %s still writes %v later", b.writer,
				b.first.At(), a.writer, a.last.Appended.Sub(b.first.Appended))
		}
	}
}
