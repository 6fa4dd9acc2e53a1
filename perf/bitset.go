package perf

import "math/bits"

const (
	// pageBits makes pages of 128 bytes: a run over 100,000 queues has nearly a million bitsets, most with a few bits.
	pageBits = 1 << 10
	// maxBits bounds what a number from a message can make us allocate: 2^36 messages of one lane.
	maxBits = 1 << 36
)

// bitset holds which numbers have been seen, in pages of 128 bytes.
type bitset struct {
	pages []*[pageBits / 64]uint64
	count int64
}

// set marks n and tells whether it was marked already; ok is false where n is beyond any use.
func (b *bitset) set(n uint64) (again, ok bool) {
	if n >= maxBits {
		return false, false
	}
	at := n / pageBits
	for uint64(len(b.pages)) <= at {
		b.pages = append(b.pages, nil)
	}
	page := b.pages[at]
	if page == nil {
		page = new([pageBits / 64]uint64)
		b.pages[at] = page
	}
	word, bit := n%pageBits/64, uint64(1)<<(n%64)
	if page[word]&bit != 0 {
		return true, true
	}
	page[word] |= bit
	b.count++
	return false, true
}

func (b *bitset) has(n uint64) bool {
	at := n / pageBits
	if at >= uint64(len(b.pages)) || b.pages[at] == nil {
		return false
	}
	return b.pages[at][n%pageBits/64]&(1<<(n%64)) != 0
}

// end is one more than the largest number marked, 0 when none is.
func (b *bitset) end() uint64 {
	for p := len(b.pages) - 1; p >= 0; p-- {
		if b.pages[p] == nil {
			continue
		}
		for w := len(b.pages[p]) - 1; w >= 0; w-- {
			if word := b.pages[p][w]; word != 0 {
				return uint64(p)*pageBits + uint64(w)*64 + uint64(bits.Len64(word))
			}
		}
	}
	return 0
}

// merge marks what other has, and tells how many both had.
func (b *bitset) merge(other *bitset) (both int64) {
	for p, page := range other.pages {
		if page == nil {
			continue
		}
		for len(b.pages) <= p {
			b.pages = append(b.pages, nil)
		}
		if b.pages[p] == nil {
			b.pages[p] = new([pageBits / 64]uint64)
		}
		mine := b.pages[p]
		for w, word := range page {
			both += int64(bits.OnesCount64(mine[w] & word))
			mine[w] |= word
		}
	}
	b.count += other.count - both
	return both
}

// missing counts the numbers of b that other does not have.
func (b *bitset) missing(other *bitset) (n int64) {
	for p, page := range b.pages {
		if page == nil {
			continue
		}
		var theirs *[pageBits / 64]uint64
		if p < len(other.pages) {
			theirs = other.pages[p]
		}
		for w, word := range page {
			if theirs != nil {
				word &^= theirs[w]
			}
			n += int64(bits.OnesCount64(word))
		}
	}
	return n
}
