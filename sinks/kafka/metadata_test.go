package kafka

import "testing"

// Connections that lay idle are replaced before use, so that quiet nights make no warnings.
func TestIdleConnectionsAreReplaced(t *testing.T) {
	f := newFake(t)
	defer f.Close()
	s := open(t, f.config())
	defer shut(t, s)
	if err := s.Write(t.Context(), sinkItems(50)); err != nil {
		t.Fatal(err)
	}
	old := map[int32]*conn{}
	for id, cn := range s.cl.conns {
		old[id] = cn
		cn.used = cn.used.Add(-maxIdle)
		cn.net.Close()
	}
	if err := s.Write(t.Context(), sinkItems(50)); err != nil || s.Stats().Retried != 0 {
		t.Errorf("%v, %d retries, want none", err, s.Stats().Retried)
	}
	for _, id := range s.cl.topics["cti.events.v1"].leaders {
		if s.cl.conns[id] == old[id] {
			t.Errorf("broker %d: the idle connection was used", id)
		}
	}
}

func TestMorePartitionsAreNoticed(t *testing.T) { eachClient(t, testMorePartitionsAreNoticed) }

func testMorePartitionsAreNoticed(t *testing.T, client string) {
	f := newFake(t)
	f.client = client
	defer f.Close()
	s := open(t, f.config())
	defer shut(t, s)
	if err := f.DeleteTopic("cti.events.v1"); err != nil {
		t.Fatal(err)
	}
	if err := f.CreateTopic("cti.events.v1", 9, nil); err != nil {
		t.Fatal(err)
	}
	s.cl.learned = s.cl.learned.Add(-maxAge)
	if err := s.Write(t.Context(), sinkItems(200)); err != nil {
		t.Fatal(err)
	}
	got, err := f.records()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		if want := partition(string(r.Key), 9); r.Partition != want {
			t.Errorf("key %s is on partition %d, want %d", r.Key, r.Partition, want)
		}
	}
}
