package commitlog

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/ioengine"
)

// In the walk of one message: for one that is old, this stands between store/get.go, which found it, and broker/pull.go, which sends it.
//
// coldCache holds blocks of segments that are read again long after they were written, for engines that leave nothing in the page cache. A
// reactor copies records out of them without a system call; on a virtual machine that gives free pages back to its host the page cache would
// take new pages for all that is read, 5 to 35 us for each, where these are used again and again.
//
//	segment  | block | block | block | block ...     1 MiB each, the last one of a segment may be shorter
//	            ^ pins: one of the cache itself, one of each who copies from it, loads it or waits for it
//
// A block goes when its place is needed and nobody but the cache has a pin, the one first that was not asked for for longest. It holds what was
// in the file when it was loaded (before Log.written) and never changes; one that ends before what is asked for gives way to a new one.
type coldCache struct {
	l *Log
	// shards are the table: by where a block starts. Readers look without a lock.
	shards []coldShard
	shift  int
	// clock counts blocks that were taken: the time by which a block is old.
	clock atomic.Int64
	// unread counts blocks that were read ahead and not asked for yet.
	unread atomic.Int32
	misses atomic.Int64
	// wasted is the share of the blocks that went lately and had been of little use, reloaded of those loaded lately that had just gone.
	wasted, reloaded share
	// ghosts remember how often blocks were asked for that are not here: coldGhost.
	ghosts [256]atomic.Uint64
	// ahead has log offsets that somebody read up to in order; loads are the places for loads that somebody waits for, and for others.
	ahead        chan int64
	quit         chan struct{}
	loads, early chan struct{}
	wg           sync.WaitGroup

	// mu guards what follows, and the changes of the table. Never held over I/O, and never taken by a reactor.
	mu sync.Mutex
	// most is how many blocks there may be; blocks are those that there are, memory and free what they lie in.
	// Invariant: len(blocks)+len(free) = len(memory)*arenaBlocks, and len(blocks) <= most.
	most   int
	blocks []*coldBlock
	memory []*ioengine.BlockMemory
	free   [][]byte
	// gone is which blocks went lately, by where they start, and at what clock.
	gone [512]struct{ start, at int64 }
	// bad are starts of blocks that could not be read: no more than maxBad of them.
	bad    map[int64]struct{}
	closed bool
	// idle is for how many beats nothing was read; reads is how much had been read then.
	idle  int
	reads int64
}

type coldShard struct {
	list atomic.Pointer[[]*coldBlock]
	hits atomic.Int64
	_    [48]byte
}

// coldBlock is one block, from the moment on that somebody loads it.
type coldBlock struct {
	start int64 // log offset
	// bytes is the memory; end the log offset up to which it holds the log, set before ready.
	bytes []byte
	end   int64
	ready atomic.Bool
	// loaded is closed when it is ready, or failed.
	loaded chan struct{}
	// pins never rises again from 0.
	pins atomic.Int32
	// used is the clock when it was asked for last, served how many bytes were copied from it.
	used, served atomic.Int64
	// unread: it was read ahead, and nobody has asked for it.
	unread atomic.Bool
	// stale: it is not in the table any more. Under coldCache.mu.
	stale bool
}

const (
	coldBlockSize = 1 << 20
	// arenaBlocks is how many blocks memory is taken for at a time: in huge pages, where there are some.
	arenaBlocks   = 8
	minColdBlocks = arenaBlocks
	// coldLoads is how many blocks are read at a time that somebody waits for, earlyLoads how many others.
	coldLoads, earlyLoads = 8, 3
	// readAhead is how many blocks are read ahead of a reader in order.
	readAhead = 4
	maxBad    = 64
	// coldIdle is after how many beats without a read the memory is given back, 30 s.
	coldIdle = 30
)

// openCold makes the cache, where the engine has a use for it.
func (l *Log) openCold() {
	o := &l.opt
	if o.ColdCacheSize <= 0 || l.memory == nil || o.Engine < ioengine.EngineDirect && !o.cacheAlways {
		return
	}
	c := &coldCache{l: l, most: max(minColdBlocks, int(o.ColdCacheSize/coldBlockSize)/arenaBlocks*arenaBlocks),
		ahead: make(chan int64, 16), quit: make(chan struct{}), loads: make(chan struct{}, coldLoads), early: make(chan struct{}, earlyLoads), bad: map[int64]struct{}{}}
	size := bits.Len(uint(c.most - 1))
	c.shards, c.shift = make([]coldShard, 1<<size), 64-size
	for i := range c.shards {
		c.shards[i].list.Store(new([]*coldBlock))
	}
	l.cold = c
	c.wg.Go(c.followReaders)
}

// KeepsBlocks tells that what is not in the log's memory is read from blocks that the log keeps in memory, and not through the page cache.
func (l *Log) KeepsBlocks() bool { return l.cold != nil }

// shard is the part of the table for a block that starts at the log offset start.
func (c *coldCache) shard(start int64) *coldShard {
	return &c.shards[uint64(start>>12)*0x9e3779b97f4a7c15>>c.shift]
}

// blockOf is the start of the block in s that has the place at, and the end that it has when it is full, as log offsets.
func (s *segment) blockOf(at int64) (start, end int64) {
	at &^= coldBlockSize - 1
	return s.base + at, s.base + min(at+coldBlockSize, s.size)
}

func (b *coldBlock) pin() bool {
	for {
		n := b.pins.Load()
		if n == 0 {
			return false
		}
		if b.pins.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (b *coldBlock) unpin() { b.pins.Add(-1) }

// visible is the block in the table that starts there, pinned, or nil.
func (c *coldCache) visible(start int64) *coldBlock {
	for _, b := range *c.shard(start).list.Load() {
		if b.start == start && b.pin() {
			return b
		}
	}
	return nil
}

// copy fills dst from the blocks, and waits for nothing. False: one of them is not there; what dst has then means nothing.
func (c *coldCache) copy(s *segment, dst []byte, at int64) bool {
	for len(dst) > 0 {
		start, full := s.blockOf(at)
		n := min(int64(len(dst)), full-s.base-at)
		b := c.visible(start)
		if b == nil {
			c.misses.Add(1)
			return false
		}
		hit := b.copy(dst[:n], s.base+at)
		if hit {
			c.touch(b, int(n))
		}
		b.unpin()
		if !hit {
			c.misses.Add(1)
			return false
		}
		dst, at = dst[n:], at+n
	}
	return true
}

// copy fills dst with the log from off on, if the block has it by now. The caller has a pin.
func (b *coldBlock) copy(dst []byte, off int64) bool {
	if !b.ready.Load() || off+int64(len(dst)) > b.end {
		return false
	}
	copy(dst, b.bytes[off-b.start:])
	return true
}

// touch notes that the block was of use, for n bytes. The first use of one that was read ahead asks for more of them.
func (c *coldCache) touch(b *coldBlock, n int) {
	c.shard(b.start).hits.Add(1)
	b.served.Add(int64(n))
	if now := c.clock.Load(); b.used.Load() != now {
		b.used.Store(now)
	}
	if b.unread.Load() && b.unread.Swap(false) {
		c.unread.Add(-1)
		c.goAhead(b.end)
	}
}

// goAhead has the blocks behind off read ahead. Where too many ask, some are not heard.
func (c *coldCache) goAhead(off int64) {
	select {
	case c.ahead <- off:
	default:
	}
}

// setLocked puts a block into the table, or takes it out.
func (c *coldCache) setLocked(b *coldBlock, there bool) {
	at := &c.shard(b.start).list
	var list []*coldBlock
	for _, other := range *at.Load() {
		if other != b {
			list = append(list, other)
		}
	}
	if there {
		list = append(list, b)
	}
	b.stale = !there
	at.Store(&list)
}

// take is the block that starts there, pinned; load: it is new, and the caller calls load, who ends with a pin of its own. need is the log offset
// up to which it is to hold the log. nil: there is no place for it now, or it could not be read before.
func (c *coldCache) take(start, need int64) (b *coldBlock, load bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.visible(start); b != nil {
		if !b.ready.Load() || b.end >= need {
			return b, false
		}
		c.setLocked(b, false)
		b.unpin()
	}
	if _, bad := c.bad[start]; bad || c.closed {
		return nil, false
	}
	bytes := c.placeLocked()
	if bytes == nil {
		return nil, false
	}
	b = &coldBlock{start: start, bytes: bytes, loaded: make(chan struct{})}
	now := c.clock.Add(1)
	gone := c.goneAt(start)
	c.reloaded.note(gone.start == start && gone.at > 0 && now-gone.at <= int64(c.most))
	b.used.Store(now)
	b.pins.Store(3) // of the cache, the loader, the caller
	c.blocks = append(c.blocks, b)
	c.setLocked(b, true)
	return b, true
}

// placeLocked finds memory for one more block, or nil.
func (c *coldCache) placeLocked() []byte {
	if len(c.free) == 0 && len(c.memory)*arenaBlocks < c.most {
		m, err := ioengine.NewBlockMemory(arenaBlocks * coldBlockSize)
		if err == nil {
			c.memory = append(c.memory, m)
			for b := m.Bytes(); len(b) > 0; b = b[coldBlockSize:] {
				c.free = append(c.free, b[:coldBlockSize:coldBlockSize])
			}
		}
	}
	if len(c.free) == 0 {
		c.evictLocked()
	}
	n := len(c.free) - 1
	if n < 0 {
		return nil
	}
	place := c.free[n]
	c.free = c.free[:n]
	return place
}

// evictLocked lets go of the block that was not asked for for longest and that nobody has a pin of.
func (c *coldCache) evictLocked() {
	oldest := -1
	var since int64
	for i, b := range c.blocks {
		used := b.used.Load()
		if b.stale {
			used = 0
		}
		if b.pins.Load() == 1 && (oldest < 0 || used < since) {
			oldest, since = i, used
		}
	}
	if oldest < 0 {
		return
	}
	b := c.blocks[oldest]
	if stale := b.stale; c.dropLocked(oldest) && !stale {
		c.wasted.note(b.served.Load() < coldBlockSize/littleUse)
		*c.goneAt(b.start) = struct{ start, at int64 }{b.start, c.clock.Load()}
	}
}

// goneAt is the place to remember in that a block went. Two that share one forget each other.
func (c *coldCache) goneAt(start int64) *struct{ start, at int64 } {
	return &c.gone[uint64(start>>12)*0x9e3779b97f4a7c15>>55]
}

const (
	// A block that served less than one part in littleUse of it was read in vain.
	littleUse = 16
	// forgiven is how many good events each second counts for: a cache that was of no use is tried again after one or two.
	forgiven = 16
	// shareMemory is how many events a share remembers, about; shareScale is all of them.
	shareMemory = 32
	shareScale  = 1 << 20
)

// share is how many of the last events were of one kind. Written under coldCache.mu.
type share struct{ of atomic.Int64 }

func (s *share) note(yes bool) {
	of := s.of.Load() * (shareMemory - 1) / shareMemory
	if yes {
		of += shareScale / shareMemory
	}
	s.of.Store(of)
}

// crowded tells that blocks are better not loaded now: those who read are too many for the cache, or read too little here and there, so that
// most blocks go before they were of use. Readers of one topic whose queues have drifted apart load each block once for each queue, which is still
// better than the other way: of 4 queues that makes 3 of 4 loads of blocks that had just gone.
func (c *coldCache) crowded() bool {
	return c.wasted.of.Load() > shareScale*3/4 || c.reloaded.of.Load() > shareScale*13/16
}

// dropLocked lets go of c.blocks[i], if nobody has a pin of it.
func (c *coldCache) dropLocked(i int) bool {
	b := c.blocks[i]
	if !b.pins.CompareAndSwap(1, 0) {
		return false
	}
	if !b.stale {
		c.setLocked(b, false)
	}
	if b.unread.Swap(false) {
		c.unread.Add(-1)
	}
	c.free = append(c.free, b.bytes)
	last := len(c.blocks) - 1
	c.blocks[i], c.blocks[last] = c.blocks[last], nil
	c.blocks = c.blocks[:last]
	return true
}

// dropAllLocked lets go of the blocks that which tells, if nobody has pins of them.
func (c *coldCache) dropAllLocked(which func(*coldBlock) bool) {
	for i := len(c.blocks) - 1; i >= 0; i-- {
		if which(c.blocks[i]) {
			c.dropLocked(i)
		}
	}
}

// forget lets go of what is there of a segment that was dropped, and that nobody reads any more.
func (c *coldCache) forget(s *segment) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropAllLocked(func(b *coldBlock) bool { return b.start < s.end() })
	for start := range c.bad {
		if start < s.end() {
			delete(c.bad, start)
		}
	}
}

// beat is called every second by the keeper: memory that nobody has read from for coldIdle of them is given back.
func (c *coldCache) beat() {
	if c == nil {
		return
	}
	reads := c.hits() + c.misses.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for range forgiven {
		c.wasted.note(false)
		c.reloaded.note(false)
	}
	if c.idle++; reads != c.reads {
		c.idle, c.reads = 0, reads
	}
	if c.idle >= coldIdle && len(c.memory) > 0 {
		c.giveBackLocked()
	}
}

// giveBackLocked gives all memory back, unless somebody has a pin.
func (c *coldCache) giveBackLocked() {
	c.dropAllLocked(func(*coldBlock) bool { return true })
	if len(c.blocks) > 0 {
		return
	}
	for _, m := range c.memory {
		if err := m.Free(); err != nil {
			c.l.opt.Logger.Warn("memory for reading old segments is not given back", "err", err)
		}
	}
	c.memory, c.free = nil, nil
	clear(c.bad)
}

// close ends reading ahead and gives the memory back. Nobody reads any more.
func (c *coldCache) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	close(c.quit)
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.giveBackLocked()
}

func (c *coldCache) hits() (n int64) {
	for i := range c.shards {
		n += c.shards[i].hits.Load()
	}
	return n
}

// ColdStats are the figures of the blocks that a log keeps.
type ColdStats struct {
	Hits, Misses int64 // reads of a block that was there, or not
	Loaded       int64 // blocks
	Bytes        int64 // of memory that is taken now
}

// ColdStats are all 0 where the log keeps no blocks.
func (l *Log) ColdStats() ColdStats {
	c := l.cold
	if c == nil {
		return ColdStats{}
	}
	c.mu.Lock()
	held := int64(len(c.memory)) * arenaBlocks * coldBlockSize
	c.mu.Unlock()
	return ColdStats{c.hits(), c.misses.Load(), c.clock.Load(), held}
}
