package commitlog

import (
	"iter"

	"github.com/ringmq/ringmq/ioengine"
)

// What of the cold cache may wait for the disk: never on a reactor.

// load reads a block that take made. The caller holds s; early: nobody waits for it yet.
func (c *coldCache) load(s *segment, b *coldBlock, early bool) {
	places := c.loads
	if early {
		places = c.early
	}
	places <- struct{}{}
	_, full := s.blockOf(b.start - s.base)
	// Before the read: what is written later may not be in it.
	end := min(full, c.l.written.Load())
	n := min((end-b.start+ioengine.TailBlock-1)/ioengine.TailBlock*ioengine.TailBlock, full-b.start)
	err := error(ErrGone)
	if n > 0 {
		err = ioengine.ReadBlock(s.file, b.bytes[:n], b.start-s.base)
	}
	<-places
	if err == nil {
		b.end = end
		b.ready.Store(true)
	} else {
		c.failed(b, n > 0)
	}
	// In this order: whoever waits has a pin, and finds no other but the cache's when nobody else is there.
	b.unpin()
	close(b.loaded)
}

// failed takes a block out of the table that could not be read. What is asked for of it is read by itself from then on: it may be sound, and if
// it is not, whoever asks learns why.
func (c *coldCache) failed(b *coldBlock, bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.stale {
		c.setLocked(b, false)
	}
	if b.unread.Swap(false) {
		c.unread.Add(-1)
	}
	if bad && len(c.bad) < maxBad {
		c.bad[b.start] = struct{}{}
	}
}

// get is the block of s that starts there when it is loaded, pinned; nil where it is not to be had.
func (c *coldCache) get(s *segment, start, need int64) *coldBlock {
	b, load := c.take(start, need)
	if b == nil {
		return nil
	}
	if load {
		c.load(s, b, false)
	}
	<-b.loaded
	return b
}

// read fills dst with what is in the file of s, from the blocks that there are. Others it loads where that is worth it, or reads no more than
// what is asked for.
func (c *coldCache) read(s *segment, dst []byte, at int64) error {
	for len(dst) > 0 {
		start, full := s.blockOf(at)
		n := min(int64(len(dst)), full-s.base-at)
		if !c.copy(s, dst[:n], at) {
			if err := c.readMissed(s, dst[:n], at, start, full); err != nil {
				return err
			}
		}
		dst, at = dst[n:], at+n
	}
	return nil
}

func (c *coldCache) readMissed(s *segment, dst []byte, at, start, full int64) error {
	want := coldWant{start: start, need: s.base + at + int64(len(dst)), parts: 1, bytes: len(dst)}
	if ordered := c.isThere(start - 1); c.worth(&want, ordered) {
		if b := c.get(s, start, want.need); b != nil {
			hit := b.copy(dst, s.base+at)
			if hit {
				c.touch(b, len(dst))
			}
			b.unpin()
			if ordered {
				c.goAhead(full)
			}
			if hit {
				return nil
			}
		}
	}
	_, err := s.file.ReadAt(dst, at)
	return err
}

// coldWant is what somebody wants of one block.
type coldWant struct {
	start, need int64 // log offsets: of the block, and up to where it is needed
	parts       int
	bytes       int
}

const (
	// A block is worth loading for so many bytes at once, or so many parts, be it here and now or lately.
	worthBytes = 64 << 10
	worthParts = 4
	// maxLoad is the share of the cache that one reader has loaded at once.
	maxLoad = 4
)

// isThere tells that the block with the byte at off is in the table: who reads on from it reads in order.
func (c *coldCache) isThere(off int64) bool {
	s := c.l.find(off)
	if s == nil {
		return false
	}
	start, _ := s.blockOf(off - s.base)
	b := c.visible(start)
	if b != nil {
		b.unpin()
	}
	return b != nil
}

// worth tells that the whole block is to be loaded for it. Who looks up one record here and one there has them read alone; a third look at the
// same block, or a fourth, has it loaded.
func (c *coldCache) worth(w *coldWant, ordered bool) bool {
	if c.crowded() {
		return false
	}
	if ordered || w.bytes >= worthBytes {
		return true
	}
	// A ghost is the block's number and how many parts were asked for. Two that share a place forget each other.
	ghost, block := &c.ghosts[uint64(w.start>>12)*0x9e3779b97f4a7c15>>56], uint64(w.start>>12)<<8
	was := ghost.Load()
	if was&^0xff != block {
		was = block
	}
	parts := min(was&0xff+uint64(w.parts), 0xff)
	ghost.Store(block | parts)
	return parts >= worthParts
}

// LoadBlocks has the blocks loaded that parts of the log lie in (log offset and length, in the order of the log), as many at a time as the
// device takes, and reads ahead where they follow each other. False: some are not worth a block, or there is no room; ReadWait has them, and tells
// what is wrong where a block could not be read. Never on a reactor.
func (l *Log) LoadBlocks(parts iter.Seq2[int64, int]) bool {
	c := l.cold
	wants, all := c.wants(parts)
	if len(wants) > c.most/maxLoad {
		wants, all = wants[:c.most/maxLoad], false
	}
	blocks := make([]*coldBlock, len(wants))
	for i := range wants {
		blocks[i] = c.beginLoad(&wants[i])
	}
	for i, b := range blocks {
		if b == nil {
			all = false
			continue
		}
		<-b.loaded
		all = all && b.ready.Load() && b.end >= wants[i].need
		b.unpin()
	}
	return all
}

// beginLoad has the block of w loaded if it is not there, and pins it; nil: it is not to be had, or not worth it.
func (c *coldCache) beginLoad(w *coldWant) *coldBlock {
	s, err := c.l.hold(w.start, 1)
	if err != nil {
		return nil
	}
	defer s.release()
	if b := c.visible(w.start); b != nil {
		if !b.ready.Load() || b.end >= w.need {
			return b
		}
		b.unpin()
	}
	ordered := c.isThere(w.start - 1)
	if !c.worth(w, ordered) {
		return nil
	}
	b, load := c.take(w.start, w.need)
	if load {
		s.acquire() // it is held, so it can be
		c.wg.Go(func() {
			defer s.release()
			c.load(s, b, false)
		})
	}
	if _, full := s.blockOf(w.start - s.base); load && ordered {
		c.goAhead(full)
	}
	return b
}

// wants collects by block what parts have in files. False: some of it is gone.
func (c *coldCache) wants(parts iter.Seq2[int64, int]) (wants []coldWant, all bool) {
	for off, n := range parts {
		s := c.l.find(off)
		if s == nil || int64(n) > s.end()-off {
			return wants, false
		}
		for at, end := off-s.base, off-s.base+int64(n); at < end; {
			end = at + int64(s.inFile(at, int(end-at)))
			if hot := s.hot.Load(); hot >= 0 && at >= hot {
				break
			}
			start, full := s.blockOf(at)
			to := min(end, full-s.base)
			if last := len(wants) - 1; last < 0 || wants[last].start != start {
				wants = append(wants, coldWant{start: start})
			}
			w := &wants[len(wants)-1]
			w.parts, w.bytes, w.need = w.parts+1, w.bytes+int(to-at), max(w.need, s.base+to)
			at = to
		}
	}
	return wants, true
}

// followReaders reads ahead of those who read in order.
func (c *coldCache) followReaders() {
	for {
		select {
		case off := <-c.ahead:
			for range readAhead {
				if off = c.loadEarly(off); off < 0 {
					break
				}
			}
		case <-c.quit:
			return
		}
	}
}

// loadEarly begins to load the block with the byte at off and answers where the next one starts; -1: that is enough. More than half of the
// cache is never full of what nobody has asked for: it would push out what somebody is about to.
func (c *coldCache) loadEarly(off int64) (next int64) {
	s, err := c.l.hold(off, 1)
	if err != nil {
		return -1
	}
	defer s.release()
	start, full := s.blockOf(off - s.base)
	if hot := s.hot.Load(); hot >= 0 && start >= s.base+hot || int(c.unread.Load()) >= c.most/2 || c.crowded() {
		return -1
	}
	b, load := c.take(start, start+1)
	if b == nil {
		return -1
	}
	b.unpin()
	if load {
		s.acquire() // it is held, so it can be
		b.unread.Store(true)
		c.unread.Add(1)
		c.wg.Go(func() {
			defer s.release()
			c.load(s, b, true)
		})
	}
	return full
}
