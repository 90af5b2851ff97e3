package kafka

// murmur2 is the hash of org.apache.kafka.common.utils.Utils, which decides a key's partition in every Java client.
func murmur2(key string) uint32 {
	const m, shift = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> shift
		h = h*m ^ k*m
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

// partition is Java's toPositive(murmur2(key)) % n.
func partition(key string, n int) int32 {
	return int32((murmur2(key) & 0x7fffffff) % uint32(n))
}
