package commitlog

// In the walk of one message: old messages are sent from here, between store/get.go, which found them, and broker/pull.go.

// Loan is parts of the log that are read where they lie in the blocks that the log keeps, until Release. Its zero value is ready for use, and so is
// one that was released. One goroutine at a time.
type Loan struct {
	blocks []*coldBlock
}

// Add appends n bytes at off, all published, to pieces. False: they are not all in blocks by now, and ReadNoWait may know more; nothing was added.
func (ln *Loan) Add(l *Log, pieces [][]byte, off int64, n int) ([][]byte, bool) {
	if l.cold == nil {
		return pieces, false
	}
	s, err := l.hold(off, int64(n))
	if err != nil {
		return pieces, false
	}
	defer s.release()
	if hot := s.hot.Load(); hot >= 0 && off+int64(n) > s.base+hot {
		return pieces, false
	}
	kept := pieces
	for n > 0 {
		start, full := s.blockOf(off - s.base)
		b := ln.block(l.cold, start)
		k := int(min(int64(n), full-off))
		if b == nil || off+int64(k) > b.end {
			return kept, false
		}
		l.cold.touch(b, k)
		pieces = append(pieces, b.bytes[off-start:][:k:k])
		off, n = off+int64(k), n-k
	}
	return pieces, true
}

// block is the block that starts there, with one pin for the whole loan, or nil.
func (ln *Loan) block(c *coldCache, start int64) *coldBlock {
	if n := len(ln.blocks); n > 0 && ln.blocks[n-1].start == start {
		return ln.blocks[n-1]
	}
	b := c.visible(start)
	if b == nil {
		return nil
	}
	if !b.ready.Load() {
		b.unpin()
		return nil
	}
	ln.blocks = append(ln.blocks, b)
	return b
}

// Release ends the loan: its pieces are not looked at any more.
func (ln *Loan) Release() {
	for i, b := range ln.blocks {
		b.unpin()
		ln.blocks[i] = nil
	}
	ln.blocks = ln.blocks[:0]
}
