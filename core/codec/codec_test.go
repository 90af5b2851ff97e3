package codec

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// filler fills values at random: every field, with nil and empty slices, maps and pointers among them.
type filler struct {
	*rand.Rand
	strings []string
}

func newFiller(seed uint64) *filler {
	return &filler{rand.New(rand.NewPCG(seed, 1)), []string{"", "a", "\xff\xfe", "agent1", "\x00", "Zoë ", "long " + string(make([]byte, 300))}}
}

func (f *filler) number() uint64 {
	switch f.IntN(5) {
	case 0:
		return 0
	case 1:
		return f.Uint64()
	case 2:
		return 1 << 63
	case 3:
		return ^uint64(0)
	}
	return f.Uint64N(200)
}

func (f *filler) text() string {
	if f.IntN(3) == 0 {
		return string(binary.AppendUvarint(nil, f.Uint64()))
	}
	return f.strings[f.IntN(len(f.strings))]
}

func (f *filler) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Pointer:
		if f.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem())
		}
	case reflect.Slice:
		if f.IntN(4) > 0 {
			v.Set(reflect.MakeSlice(v.Type(), f.IntN(4), 4))
		}
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		f.fillMap(v)
	default:
		f.scalar(v)
	}
}

func (f *filler) fillMap(v reflect.Value) {
	if f.IntN(4) == 0 {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for range f.IntN(4) {
		v.SetMapIndex(reflect.ValueOf(f.text()), reflect.ValueOf(f.text()))
	}
}

func (f *filler) scalar(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Float64:
		v.SetFloat([]float64{0, 1, -3.5, 1e300, f.Float64()}[f.IntN(5)])
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(f.number()))
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(f.number())
	default:
		panic("no rule for " + v.Type().String())
	}
}

func filled[T any](f *filler) T {
	var x T
	f.fill(reflect.ValueOf(&x).Elem())
	return x
}

// turn is items at random, several of which point to one event, and events that share connections.
func (f *filler) turn() (items []core.Item) {
	for range f.IntN(8) {
		i := filled[core.Item](f)
		i.Seq = 0 // it says where the item is kept, and is not kept
		if n := len(items); n > 0 && f.IntN(2) == 0 {
			i.Event = items[f.IntN(n)].Event
		}
		items = append(items, i)
	}
	return items
}

func TestItemsComeBackAsTheyWere(t *testing.T) {
	for seed := range uint64(3000) {
		f := newFiller(seed)
		want := f.turn()
		got, err := ReadItems(AppendItems(nil, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %v\n got %+v\nwant %+v", seed, err, got, want)
		}
		same := map[*call.Event]*call.Event{}
		for i := range got {
			if e, ok := same[want[i].Event]; ok && e != got[i].Event {
				t.Fatalf("seed %d: item %d has an event of its own", seed, i)
			}
			same[want[i].Event] = got[i].Event
		}
	}
}

// packed is what comes back of v.
func packed[T any](v T, pack func(*call.Pack, *T)) (got T, err error) {
	p := new(call.Pack)
	p.Write(nil)
	pack(p, &v)
	b := p.Bytes()
	p = new(call.Pack)
	p.Read(b)
	pack(p, &got)
	return got, p.Done()
}

func event(p *call.Pack, e **call.Event) { p.Event(e) }

func observations(p *call.Pack, all *[]call.Observation) {
	call.PackList(p, all, (*call.Pack).Observation)
}

func TestEventsAndObservationsComeBackAsTheyWere(t *testing.T) {
	for seed := range uint64(3000) {
		f := newFiller(seed)
		e := filled[call.Event](f)
		if got, err := packed(&e, event); err != nil || !reflect.DeepEqual(got, &e) {
			t.Fatalf("seed %d: %v\n got %+v\nwant %+v", seed, err, got, &e)
		}
		all := filled[[]call.Observation](f)
		if got, err := packed(all, observations); err != nil || !reflect.DeepEqual(got, all) {
			t.Fatalf("seed %d: %v\n got %+v\nwant %+v", seed, err, got, all)
		}
	}
}

// TestEveryFieldIsPacked sets each field of the model alone: one that is added to it and not packed is found.
func TestEveryFieldIsPacked(t *testing.T) {
	var e call.Event
	var leaves int
	each(reflect.ValueOf(&e).Elem(), func(path string) {
		leaves++
		if got, err := packed(&e, event); err != nil || !reflect.DeepEqual(got, &e) {
			t.Errorf("Event%s: %v", path, err)
		}
	}, "")
	all := make([]call.Observation, 1)
	each(reflect.ValueOf(&all[0]).Elem(), func(path string) {
		if got, err := packed(all, observations); err != nil || !reflect.DeepEqual(got, all) {
			t.Errorf("Observation%s: %v", path, err)
		}
	}, "")
	items := make([]core.Item, 1)
	each(reflect.ValueOf(&items[0]).Elem(), func(path string) {
		if got, err := ReadItems(AppendItems(nil, items)); path != ".Seq" && (err != nil || !reflect.DeepEqual(got, items)) {
			t.Errorf("Item%s: %v", path, err)
		}
	}, "")
	if leaves < 200 {
		t.Errorf("%d fields were tried", leaves)
	}
}

// each calls f with one field of v after the other set, and unset again.
func each(v reflect.Value, f func(path string), path string) {
	zero := reflect.Zero(v.Type())
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			each(v.Field(i), f, path+"."+v.Type().Field(i).Name)
		}
		return
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f(path)
		each(v.Elem(), f, path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f(path)
		each(v.Index(0), f, path+"[0]")
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
		f(path)
	case reflect.String:
		v.SetString("x")
		f(path)
	case reflect.Bool:
		v.SetBool(true)
		f(path)
	case reflect.Float64:
		v.SetFloat(-1.5)
		f(path)
	case reflect.Int, reflect.Int64:
		v.SetInt(-7)
		f(path)
	default:
		v.SetUint(7)
		f(path)
	}
	v.Set(zero)
}

func TestWritingTouchesNothing(t *testing.T) {
	f := newFiller(1)
	items := f.turn()
	done := make(chan struct{})
	go func() { // the race detector sees what writes
		defer close(done)
		AppendItems(nil, items)
	}()
	AppendItems(nil, items)
	<-done
}

func TestEmpty(t *testing.T) {
	for _, items := range [][]core.Item{nil, {}} {
		if got, err := ReadItems(AppendItems(nil, items)); err != nil || !reflect.DeepEqual(got, items) {
			t.Errorf("%#v came back as %#v, %v", items, got, err)
		}
	}
	b := AppendItems([]byte("before"), []core.Item{{Stream: core.StreamCalls, Key: "k"}})
	if got, err := ReadItems(b[len("before"):]); string(b[:6]) != "before" || err != nil || got[0].Key != "k" {
		t.Errorf("%q: %v, %v", b, got, err)
	}
}

func TestDamageIsAnError(t *testing.T) {
	b := AppendItems(nil, newFiller(2).turn())
	for n := range b {
		if _, err := ReadItems(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken for whole", n, len(b))
		}
	}
	if _, err := ReadItems(append(b, 0)); err == nil {
		t.Error("a byte too many is taken")
	}
	if _, err := ReadItems([]byte{'I', 99}); err == nil {
		t.Error("a newer format is taken")
	}
}

func FuzzReadItems(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(AppendItems(nil, newFiller(seed).turn()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := ReadItems(b)
		if err != nil {
			return
		}
		written := AppendItems(nil, items)
		again, err := ReadItems(written)
		if err != nil || !bytes.Equal(AppendItems(nil, again), written) {
			t.Fatalf("what was read does not come back: %v", err)
		}
	})
}
