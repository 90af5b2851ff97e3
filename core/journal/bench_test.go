package journal

import (
	"fmt"
	"io"
	"testing"
)

func BenchmarkAppendSync(b *testing.B) {
	for _, group := range []int{1, 4, 16, 64, 256, 1024} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			j, _ := open(b, Options{Dir: b.TempDir()})
			recs := make([]Record, group)
			for i := range recs {
				recs[i] = Record{At: 1, Kind: 1, Data: make([]byte, 1000)}
			}
			b.SetBytes(int64(group) * 1000)
			b.ResetTimer()
			for range b.N {
				if _, err := j.Append(recs...); err != nil {
					b.Fatal(err)
				}
				if _, err := j.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*group), "µs/record")
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	j, _ := open(b, Options{Dir: b.TempDir()})
	data := make([]byte, 1000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := j.Append(Record{At: 1, Kind: 1, Data: data}); err != nil {
			b.Fatal(err)
		}
	}
}

func benchJournal(b *testing.B, records int) Options {
	o := Options{Dir: b.TempDir()}
	j, _ := open(b, o)
	for range records / 100 {
		recs := make([]Record, 100)
		for i := range recs {
			recs[i] = Record{At: 1, Kind: 1, Data: make([]byte, 1000)}
		}
		if _, err := j.Append(recs...); err != nil {
			b.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	return o
}

func BenchmarkRead(b *testing.B) {
	j, _ := open(b, benchJournal(b, 50_000))
	b.SetBytes(1000)
	b.ReportAllocs()
	r, _ := j.Read(0)
	defer func() { r.Close() }()
	b.ResetTimer()
	for range b.N {
		if _, err := r.Next(); err == io.EOF {
			r.Close()
			r, _ = j.Read(0)
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	const records = 50_000
	o := benchJournal(b, records)
	b.SetBytes(records * 1000)
	b.ResetTimer()
	for range b.N {
		j, _ := open(b, o)
		j.Close()
	}
}
