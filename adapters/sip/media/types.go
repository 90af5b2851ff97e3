package media

// types counts packets by payload type: up to four at a time, the rarest making way.
type types struct {
	number [4]uint8
	counts [4]uint32
}

func (t *types) count(pt uint8) {
	if t.number[0] == pt { // the ordinary case
		t.counts[0]++
		return
	}
	t.add(pt, 1)
}

func (t *types) add(pt uint8, n uint32) {
	least := 0
	for i := range t.number {
		if t.number[i] == pt && t.counts[i] > 0 {
			t.counts[i] += n
			return
		}
		if t.counts[i] < t.counts[least] {
			least = i
		}
	}
	if n > t.counts[least] || t.counts[least] <= 1 {
		t.number[least], t.counts[least] = pt, n
	}
}

// merge adds the counts of o.
func (t *types) merge(o *types) {
	for i := range o.number {
		if o.counts[i] > 0 {
			t.add(o.number[i], o.counts[i])
		}
	}
}

// most returns the payload seen most, audio before events and comfort noise.
func (t *types) most(formats []Format) (p payload, ok bool) {
	var n uint32
	for i := range t.number {
		if t.counts[i] == 0 {
			continue
		}
		q := resolve(formats, t.number[i])
		sound, better := q.kind == audio, p.kind == audio
		if !ok || (sound && !better) || (sound == better && t.counts[i] > n) {
			p, n, ok = q, t.counts[i], true
		}
	}
	return p, ok
}
