package media

// gmin is Gmin of RFC 3611, 4.7.2: that many packets received in a row end a burst.
const gmin = 16

// bursts tells bursts of loss from gaps by the definition of RFC 3611, 4.7.2, in constant memory. "Lost" here is lost
// or discarded. A burst begins and ends with a lost packet and has at least two; fewer than gmin packets in a row were
// received within it. All else, isolated losses too, is gap.
type bursts struct {
	count        uint64 // bursts
	burstPackets uint64 // in bursts, lost or not
	burstLost    uint64
	gapPackets   uint64
	gapLost      uint64
	runs         uint64 // of packets lost in a row, whatever their length
	lost         uint64 // in those runs

	run      uint64 // packets received since the last loss
	openLen  uint64 // from the first to the last loss of what may become a burst; 0 when there was no loss yet
	openLost uint64
}

// received takes n packets that were received and not discarded.
func (b *bursts) received(n uint64) { b.run += n }

// lose takes n packets in a row that were lost or discarded.
func (b *bursts) lose(n uint64) {
	if n == 0 {
		return
	}
	b.lost += n
	if b.run > 0 || b.openLen == 0 {
		b.runs++
	}
	switch {
	case b.openLen == 0 || b.run >= gmin:
		b.close()
		b.openLen, b.openLost = n, n
	default:
		b.openLen += b.run + n
		b.openLost += n
	}
	b.run = 0
}

// close settles what may have become a burst, as if gmin received packets followed.
func (b *bursts) close() {
	if b.openLost >= 2 {
		b.count++
		b.burstPackets += b.openLen
		b.burstLost += b.openLost
	} else {
		b.gapPackets += b.openLen
		b.gapLost += b.openLost
	}
	b.gapPackets += b.run
	b.openLen, b.openLost, b.run = 0, 0, 0
}

// since returns what happened after mark. A burst that spans mark is counted on both sides of it.
func (b bursts) since(mark *bursts) bursts {
	b.close()
	b.count -= mark.count
	b.burstPackets -= mark.burstPackets
	b.burstLost -= mark.burstLost
	b.gapPackets -= mark.gapPackets
	b.gapLost -= mark.gapLost
	b.runs -= mark.runs
	b.lost -= mark.lost
	return b
}

// ratio is BurstR of ITU-T G.107, 7.3: the mean length of a run of losses over what it would be were losses
// independent; 1 when nothing was lost.
func (b *bursts) ratio() float64 {
	packets := b.burstPackets + b.gapPackets
	if b.runs == 0 || packets == 0 {
		return 1
	}
	p := float64(b.lost) / float64(packets)
	return min(max(float64(b.lost)/float64(b.runs)*(1-p), 1), maxBurstR)
}
