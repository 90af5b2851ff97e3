package enrich

import (
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

func TestE164(t *testing.T) {
	for _, tc := range []struct{ number, region, want string }{
		{"+49 30 901820", "", "+4930901820"},
		{"+1 (415) 555-2671", "", "+14155552671"},
		{"030 901820", "DE", "+4930901820"},
		{"0049 30 901820", "DE", "+4930901820"},
		{"030 901820", "", ""},
		{"4155552671", "US", "+14155552671"},
		{"1-415-555-2671", "US", "+14155552671"},
		{"14155552671", "US", "+14155552671"},
		{"020 7946 0018", "GB", "+442079460018"},
		{"01 44 27 00 00", "FR", "+33144270000"},
		{"912345678", "ES", "+34912345678"}, // no trunk prefix in Spain
		// Extensions, short codes and what is no number.
		{"30901820", "DE", ""},
		{"1001", "US", ""},
		{"110", "DE", ""},
		{"+1", "US", ""},
		{"+1415555267", "", ""},
		{"++14155552671", "", ""},
		{"1+4155552671", "US", ""},
		{"anonymous", "US", ""},
		{"1-800-FLOWERS", "US", ""},
		{"sip:+14155552671@example.org", "US", ""},
		{"+14155552671;ext=5", "US", ""},
		{"", "US", ""},
		{strings.Repeat("1", 10_000), "US", ""},
		{"+٤٩٣٠٩٠١٨٢٠", "DE", ""},
	} {
		if got := E164(tc.number, tc.region); got != tc.want {
			t.Errorf("%.30q in %q: got %q, want %q", tc.number, tc.region, got, tc.want)
		}
	}
}

func one(t testing.TB, o Options) core.Enricher {
	t.Helper()
	all, err := New(o)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d enrichers, %v", len(all), err)
	}
	return all[0]
}

var numbers = []Number{
	{Dialed: "+1 415 555 2671", Tenant: "acme", Queue: "sales", Label: "Sales line"},
	{Dialed: "5000", Tenant: "acme", Label: "Help desk"},
	{Prefix: "+1415", Tenant: "bay"},
	{Prefix: "+1", Tenant: "us"},
	{Prefix: "8", Label: "toll-free"},
}

func TestTable(t *testing.T) {
	n := one(t, Options{DefaultRegion: "US", Numbers: numbers})
	for dialed, want := range map[string]map[string]string{
		"+14155552671":    {"tenant": "acme", "queue": "sales", "label": "Sales line"},
		"(415) 555-2671":  {"tenant": "acme", "queue": "sales", "label": "Sales line"},
		"4155552672":      {"tenant": "bay"},
		"+12125552671":    {"tenant": "us"},
		"5000":            {"tenant": "acme", "label": "Help desk"},
		"50001":           nil,
		"+442079460018":   nil,
		"81234":           {"label": "toll-free"}, // no E.164: by prefix as given
		"8005550199":      {"tenant": "us"},       // its E.164 has the longer prefix
		"":                nil,
		"not a number":    nil,
		"+1415":           {"tenant": "bay"},
		"+1 415 555 2671": {"tenant": "acme", "queue": "sales", "label": "Sales line"},
	} {
		e := &call.Event{Call: &call.Call{To: &call.Address{Number: dialed}}}
		n.Enrich(e)
		if !maps.Equal(e.Call.Attributes, want) {
			t.Errorf("%q: got %v, want %v", dialed, e.Call.Attributes, want)
		}
	}
}

func sample() *call.Event {
	return &call.Event{
		Party: &call.Party{ID: "x", Number: "4155552671"},
		Call: &call.Call{
			From: &call.Address{Number: "+442079460018", Name: "Ann"}, To: &call.Address{Number: "4155552671"},
			Attributes: map[string]string{"tenant": "from the switch", "vip": "yes"},
			Connections: []*call.Connection{
				{ID: "1", Party: call.Party{Number: "+442079460018"}}, {ID: "2", Party: call.Party{Number: "1001"}}, {ID: "3"}},
		},
	}
}

func TestEnrichCopiesAndIsIdempotent(t *testing.T) {
	n := one(t, Options{DefaultRegion: "US", Numbers: numbers})
	e := sample()
	before, party := e.Call, e.Party
	n.Enrich(e)
	if want := sample(); !reflect.DeepEqual(before, want.Call) || !reflect.DeepEqual(party, want.Party) {
		t.Fatalf("shared structures were changed: %+v", before)
	}
	if e.Party.E164 != "+14155552671" || e.Call.From.E164 != "+442079460018" || e.Call.From.Name != "Ann" ||
		e.Call.To.E164 != "+14155552671" || e.Call.Connections[0].Party.E164 != "+442079460018" || e.Call.Connections[1].Party.E164 != "" {
		t.Errorf("got %+v, %+v", e.Party, e.Call)
	}
	if want := map[string]string{"tenant": "from the switch", "vip": "yes", "queue": "sales", "label": "Sales line"}; !maps.Equal(e.Call.Attributes, want) {
		t.Errorf("attributes %v, want %v", e.Call.Attributes, want)
	}
	if e.Call.Connections[1] != before.Connections[1] {
		t.Error("a connection was copied without need")
	}
	again := *e
	n.Enrich(&again)
	if again.Call != e.Call || again.Party != e.Party {
		t.Error("the second time changed something")
	}
}

func TestNothingToAdd(t *testing.T) {
	n := one(t, Options{})
	c := &call.Call{From: &call.Address{Number: "1001"}, To: &call.Address{Number: "5000"}}
	e := &call.Event{Call: c}
	n.Enrich(e)
	n.Enrich(&call.Event{})
	if e.Call != c {
		t.Error("copied without need")
	}
}

func TestFaultyOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"default_region":                     {DefaultRegion: "XX"},
		"numbers[1]: +123 is named twice":    {Numbers: []Number{{Dialed: "+123"}, {Dialed: "+1 2-3"}}},
		"numbers[0]: needs exactly one":      {Numbers: []Number{{}}},
		"numbers[0]: needs exactly one of d": {Numbers: []Number{{Dialed: "1", Prefix: "2"}}},
		"has no digits":                      {Numbers: []Number{{Dialed: " - "}}},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	n := one(t, Options{CacheSize: 100}).(*enricher)
	hot := n.fact("+14155552671")
	for i := range 10_000 {
		n.fact(fmt.Sprint(i))
		if i%20 == 0 && n.fact("+14155552671") != hot {
			t.Fatalf("a number in use was forgotten at %d", i)
		}
	}
	n.fact(strings.Repeat("9", 1<<20))
	if got := n.cache.len(); got > 100 {
		t.Errorf("%d numbers are remembered", got)
	}
}

func FuzzE164(f *testing.F) {
	for _, s := range []string{"+14155552671", "030 901820", "1001", "sip:a@b", "(0)30/901820", "+", "00"} {
		f.Add(s, "DE")
		f.Add(s, "US")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, number, region string) {
		got := E164(number, region)
		if got == "" {
			return
		}
		if got[0] != '+' || len(got) > 16 || strings.Trim(got[1:], "0123456789") != "" {
			t.Errorf("%q in %q gave %q", number, region, got)
		}
		if again := E164(got, region); again != got {
			t.Errorf("%q gave %q, which gave %q", number, got, again)
		}
	})
}

// BenchmarkHit is an event of a call with two public numbers, a table row and no attributes of its own, all cached.
func BenchmarkHit(b *testing.B) {
	n := one(b, Options{DefaultRegion: "US", Numbers: numbers})
	c := sample().Call
	c.Attributes, c.From.Name = nil, ""
	b.ReportAllocs()
	for b.Loop() {
		e := call.Event{Call: c}
		n.Enrich(&e)
	}
}

func BenchmarkHitWithAttributes(b *testing.B) {
	n := one(b, Options{DefaultRegion: "US", Numbers: numbers})
	e := sample()
	b.ReportAllocs()
	for b.Loop() {
		f := *e
		n.Enrich(&f)
	}
}

func BenchmarkNothingToAdd(b *testing.B) {
	n := one(b, Options{})
	c := &call.Call{From: &call.Address{Number: "1001"}, To: &call.Address{Number: "5000"}}
	b.ReportAllocs()
	for b.Loop() {
		e := call.Event{Call: c}
		n.Enrich(&e)
	}
}
