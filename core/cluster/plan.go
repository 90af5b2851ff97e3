package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// wish is what a member tells the group about itself: the user data of its subscription.
type wish struct {
	Node     string  `json:"node"`
	Units    int     `json:"units"` // how many it knows of: 0 … Units-1
	Priority int     `json:"priority,omitempty"`
	Idle     bool    `json:"idle,omitempty"`     // wants none: it drains, or has
	Declined []int   `json:"declined,omitempty"` // could not take these over just now
	Claims   []claim `json:"claims,omitempty"`   // owns these
}

// claim is a unit that a member owns, since the generation in which it was assigned to it.
type claim struct {
	Unit  int   `json:"unit"`
	Since int32 `json:"since"`
}

// plan is what the leader of a generation decides, given to all members as the user data of their assignments.
type plan struct {
	Members []planned `json:"members"`
}

type planned struct {
	ID    string `json:"id"`
	Node  string `json:"node"`
	Idle  bool   `json:"idle,omitempty"`
	Units []int  `json:"units,omitempty"`
}

// owner is the member that has a unit in the plan, "" when none has.
func (p plan) owner(unit int) (id, node string) {
	for _, m := range p.Members {
		if slices.Contains(m.Units, unit) {
			return m.ID, m.Node
		}
	}
	return "", ""
}

// candidate is a member of the generation being planned.
type candidate struct {
	id string
	wish
	has []int
}

// spread makes the plan: a unit stays with the member that claims it (with the one that owned it last, should two
// claim it); an unclaimed one goes to the member of the highest priority that has the fewest, then the first by name. A
// unit that nobody wants stays without an owner. It does not depend on the order of the members.
func spread(units int, members []candidate) plan {
	slices.SortFunc(members, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.id, b.id))
	})
	free := keep(units, members)
	for _, unit := range free {
		if c := choose(unit, members); c != nil {
			c.has = append(c.has, unit)
		}
	}
	p := plan{Members: make([]planned, len(members))}
	for i, c := range members {
		slices.Sort(c.has)
		p.Members[i] = planned{c.id, c.Node, c.Idle, c.has}
	}
	return p
}

// keep gives claimed units to their owners and returns the others.
func keep(units int, members []candidate) (free []int) {
	for unit := range units {
		var owner *candidate
		var since int32
		for i := range members {
			if s, ok := members[i].claims(unit); ok && (owner == nil || s > since) {
				owner, since = &members[i], s
			}
		}
		if owner == nil {
			free = append(free, unit)
			continue
		}
		owner.has = append(owner.has, unit)
	}
	return free
}

func (w wish) claims(unit int) (since int32, ok bool) {
	for _, c := range w.Claims {
		if c.Unit == unit {
			return c.Since, true
		}
	}
	return 0, false
}

func choose(unit int, members []candidate) (best *candidate) {
	for i := range members {
		c := &members[i]
		if c.Idle || unit >= c.Units || slices.Contains(c.Declined, unit) {
			continue
		}
		if best == nil || c.Priority > best.Priority || c.Priority == best.Priority && len(c.has) < len(best.has) {
			best = c
		}
	}
	return best
}

// subscription encodes a wish as the consumer protocol's metadata, so that Kafka's own tools can show it.
func subscription(topic string, w wish) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = []string{topic}
	m.UserData = mustJSON(w)
	return m.AppendTo(nil)
}

// readSubscription is the reverse. Whatever is not one of ours makes a candidate that wants nothing.
func readSubscription(id string, b []byte) (candidate, error) {
	c := candidate{id: id, wish: wish{Idle: true}}
	var m kmsg.ConsumerMemberMetadata
	if err := m.ReadFrom(b); err != nil {
		return c, fmt.Errorf("reading the subscription of member %s: %w", id, err)
	}
	var w wish
	if err := json.Unmarshal(m.UserData, &w); err != nil {
		return c, fmt.Errorf("reading the subscription of member %s: %w", id, err)
	}
	c.wish = w
	return c, nil
}

func assignment(topic string, p plan, units []int) []byte {
	a := kmsg.NewConsumerMemberAssignment()
	t := kmsg.NewConsumerMemberAssignmentTopic()
	t.Topic = topic
	for _, u := range units {
		t.Partitions = append(t.Partitions, int32(u))
	}
	if len(units) > 0 {
		a.Topics = append(a.Topics, t)
	}
	a.UserData = mustJSON(p)
	return a.AppendTo(nil)
}

// readAssignment returns the units assigned, each once, and the plan they are part of. None for no bytes.
func readAssignment(topic string, b []byte) (units []int, p plan, err error) {
	if len(b) == 0 {
		return nil, p, nil
	}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(b); err != nil {
		return nil, p, fmt.Errorf("reading the group's assignment: %w", err)
	}
	for _, t := range a.Topics {
		for _, u := range t.Partitions {
			if t.Topic == topic && u >= 0 {
				units = append(units, int(u))
			}
		}
	}
	if len(a.UserData) > 0 {
		if err := json.Unmarshal(a.UserData, &p); err != nil {
			return nil, p, fmt.Errorf("reading the plan in the group's assignment: %w", err)
		}
	}
	slices.Sort(units)
	return slices.Compact(units), p, nil
}

// mustJSON encodes plain structs of ours.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
