package cloudevents

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

var awkward = []string{
	"", "", "plain", "Jörg \"Quo\" \\ <b>&", "tab\tnl\ncr\r\b\f\x00\x1f\x7f", "\xff\xfe broken", "日本語 😀", "\u2028\u2029",
}

var awkwardFloats = []float64{0, 1, -1, 0.5, 4.1, 1e-7, 123456789.125, 1e21, -2.5e-9, 1e100, 3}

// fill sets every field under v to something random, often to nothing.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if v.Type() == reflect.TypeFor[call.Time]() {
		if r.IntN(3) > 0 {
			v.SetInt(r.Int64N(4e15) - 1e15)
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(awkward[r.IntN(len(awkward))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(r.IntN(5) * (r.IntN(2000) - 1000)))
	case reflect.Uint64:
		v.SetUint(r.Uint64() * uint64(r.IntN(2)))
	case reflect.Float64:
		v.SetFloat(awkwardFloats[r.IntN(len(awkwardFloats))])
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i), depth+1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 4))
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		for range r.IntN(20) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, k, depth+1)
			fill(r, e, depth+1)
			k.SetString(k.String() + string(rune('a'+r.IntN(26))))
			m.SetMapIndex(k, e)
		}
		v.Set(m)
	default:
		panic("the model has a kind of field this test does not fill: " + v.Kind().String())
	}
}

// reference is encoding/json without HTML escaping.
func reference(t testing.TB, v any) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatalf("encoding/json: %v", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// A field added to the model and forgotten here fails this test, as does one that is written differently.
func TestEventsAreWrittenAsEncodingJSONWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		var ev call.Event
		fill(r, reflect.ValueOf(&ev).Elem(), 0)
		var callJSON []byte
		if ev.Call != nil {
			callJSON = AppendCall(nil, ev.Call)
		}
		got, want := appendEvent(nil, &ev, callJSON), reference(t, &ev)
		if !bytes.Equal(got, want) {
			t.Fatalf("event %d:\n got %s\nwant %s", i, got, want)
		}
	}
}

func TestCallsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 500 {
		var c, back call.Call
		fill(r, reflect.ValueOf(&c).Elem(), 0)
		first := AppendCall(nil, &c)
		if err := json.Unmarshal(first, &back); err != nil {
			t.Fatalf("call %d: %v in %s", i, err, first)
		}
		if again := AppendCall(nil, &back); !bytes.Equal(reference(t, &back), again) {
			t.Fatalf("call %d changed on the way:\n%s\n%s", i, first, again)
		}
	}
}

func FuzzString(f *testing.F) {
	for _, s := range awkward {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := appendString(nil, s), reference(t, s); !bytes.Equal(got, want) {
			t.Fatalf("%q: got %s, want %s", s, got, want)
		}
	})
}

func FuzzTime(f *testing.F) {
	for _, n := range []int64{0, 1, -1, 951826554000123, -62167219200000000, 253402300799999999, 253402300800000000, 1 << 62} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		if got, want := appendTime(nil, call.Time(n)), call.Time(n).AppendFormat(nil); !bytes.Equal(got, want) {
			t.Fatalf("%d: got %s, want %s", n, got, want)
		}
	})
}

func FuzzFloat(f *testing.F) {
	for _, v := range awkwardFloats {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		if v-v != 0 {
			if got := appendFloat(nil, v); string(got) != "null" {
				t.Fatalf("%v: got %s, want null", v, got)
			}
			return
		}
		if got, want := appendFloat(nil, v), reference(t, v); !bytes.Equal(got, want) {
			t.Fatalf("%v: got %s, want %s", v, got, want)
		}
	})
}
