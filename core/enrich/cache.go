package enrich

// cache remembers facts about the numbers used last. It has two generations: when the young one is full, the old one
// is forgotten and the young one becomes old; what is used moves to the young one. So it holds at most size facts, and
// at least the size/2 used last.
type cache struct {
	half       int
	young, old map[string]*fact
}

func newCache(size int) *cache {
	return &cache{half: max(1, size/2), young: map[string]*fact{}, old: map[string]*fact{}}
}

func (c *cache) get(number string) *fact {
	if f := c.young[number]; f != nil {
		return f
	}
	f := c.old[number]
	if f != nil {
		c.put(f)
	}
	return f
}

func (c *cache) put(f *fact) {
	if len(c.young) >= c.half {
		c.young, c.old = map[string]*fact{}, c.young
	}
	c.young[f.number] = f
}

func (c *cache) len() int { return len(c.young) + len(c.old) }
