package faultfs

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"syscall"
)

// CrashMode says what becomes of that which was not synced.
type CrashMode int

const (
	// KeepAll is the end of the process, kill -9 included: the page cache stays.
	KeepAll CrashMode = iota
	// LoseAll is a power loss that finds nothing written back.
	LoseAll
	// Random is a power loss: each page of 4 KiB and each change of names is kept
	// or lost.
	Random
	// Torn is Random where a page may also be a mix of old and new sectors of 512
	// bytes.
	Torn
)

func (m CrashMode) String() string {
	return [...]string{"KeepAll", "LoseAll", "Random", "Torn"}[m]
}

// Crash is the file system as the next start of the program finds it: a copy, so
// that one moment can be crashed in many ways. The same seed gives the same
// outcome. Handles, locks, gates and faults do not survive; the capacity does. f
// goes on as if nothing had happened.
func (f *FS) Crash(seed int64, mode CrashMode) *FS {
	return f.crash(mode, rand.New(rand.NewPCG(uint64(seed), uint64(mode))).IntN)
}

// chooser throws the dice of a crash: it answers one of n outcomes, 0 for what was before the change and 1 for all of the change.
type chooser func(n int) int

func (f *FS) crash(mode CrashMode, choose chooser) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := New()
	next.capacity, next.noWaitOff = f.capacity, f.noWaitOff
	c := copier{known: map[*inode]*inode{}}
	next.root = c.node(f.root)
	for _, p := range f.pending {
		next.pending = append(next.pending, nameChange{from: c.node(p.from), to: c.node(p.to),
			fromName: p.fromName, toName: p.toName, node: c.node(p.node)})
	}
	if mode != KeepAll {
		for _, p := range next.pending {
			if mode != LoseAll && choose(2) == 1 {
				p.apply()
			}
		}
		next.pending = nil
		powerLoss(next.root, mode, choose, map[*inode]bool{})
	}
	next.used = count(next.root, map[*inode]bool{})
	return next
}

// CrashStates gives the states that a power loss may leave, up to most of them, each with a name: every subset of the unsynced pages,
// sizes and names where there are few enough; else each prefix, each one lost, each one kept, and by the dice what is left of most.
func (f *FS) CrashStates(most int) iter.Seq2[string, *FS] {
	return func(yield func(string, *FS) bool) {
		n := 0
		all := f.crash(Random, func(int) int { n++; return 1 })
		give := func(name string, keep func(i int) bool) bool {
			i := -1
			return yield(name, f.crash(Random, func(int) int {
				if i++; keep(i) {
					return 1
				}
				return 0
			}))
		}
		if n < 30 && 1<<n <= most {
			for mask := range 1<<n - 1 {
				if !give(fmt.Sprintf("subset %0*b of %d changes", n, mask, n), func(i int) bool { return mask>>i&1 == 1 }) {
					return
				}
			}
			yield("all changes kept", all)
			return
		}
		for k := range n {
			if !give(fmt.Sprintf("the first %d of %d changes", k, n), func(i int) bool { return i < k }) ||
				!give(fmt.Sprintf("all but change %d of %d", k, n), func(i int) bool { return i != k }) ||
				!give(fmt.Sprintf("change %d of %d alone", k, n), func(i int) bool { return i == k }) {
				return
			}
		}
		for seed := range max(0, most-3*n) {
			if !yield(fmt.Sprintf("seed %d", seed), f.Crash(int64(seed), Torn)) {
				return
			}
		}
	}
}

// Kill is Crash of the process alone: everything written is there.
func (f *FS) Kill() *FS { return f.Crash(0, KeepAll) }

// copier copies nodes once each, so that shared ones stay shared.
type copier struct{ known map[*inode]*inode }

func (c copier) node(n *inode) *inode {
	if n == nil || c.known[n] != nil {
		return c.known[n]
	}
	twin := &inode{dir: n.dir, mode: n.mode, modTime: n.modTime,
		cache: bytes.Clone(n.cache), dev: bytes.Clone(n.dev),
		lost: slices.Clone(n.lost), snap: bytes.Clone(n.snap), cold: maps.Clone(n.cold)}
	c.known[n] = twin
	if n.dir {
		twin.entries, twin.durable = c.names(n.entries), c.names(n.durable)
	}
	return twin
}

func (c copier) names(from map[string]*inode) map[string]*inode {
	to := make(map[string]*inode, len(from))
	for name, n := range from {
		to[name] = c.node(n)
	}
	return to
}

// powerLoss settles names and bytes below a folder, in the order of the names so
// that a seed always throws the same dice.
func powerLoss(n *inode, mode CrashMode, choose chooser, seen map[*inode]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.dir {
		n.entries = maps.Clone(n.durable)
		for _, name := range sortedNames(n.entries) {
			powerLoss(n.entries[name], mode, choose, seen)
		}
		return
	}
	n.cache = survivors(n, mode, choose)
	n.dev = bytes.Clone(n.cache)
	n.lost, n.snap = nil, nil
	n.chill()
}

// survivors is what the device has of a file after a power loss.
func survivors(n *inode, mode CrashMode, choose chooser) []byte {
	if mode == LoseAll {
		return bytes.Clone(n.dev)
	}
	size := crashSize(int64(len(n.dev)), int64(len(n.cache)), choose)
	old, new := resized(bytes.Clone(n.dev), size), resized(bytes.Clone(n.cache), size)
	for i := range min(len(n.lost), len(n.cache), len(new)) {
		if n.lost[i] && n.snap[i] == n.cache[i] {
			new[i] = old[i]
		}
	}
	for at := 0; at < len(old); at += pageSize {
		end := min(at+pageSize, len(old))
		if !bytes.Equal(old[at:end], new[at:end]) {
			writePage(old[at:end], new[at:end], mode, choose)
		}
	}
	return old
}

// crashSize is the old size, the new one, or a page boundary between them.
func crashSize(old, new int64, choose chooser) int64 {
	if old == new {
		return old
	}
	switch choose(3) {
	case 0:
		return old
	case 1:
		return new
	}
	low, high := min(old, new), max(old, new)
	size := low + int64(choose(int(min(high-low+1, math.MaxInt32))))
	return max(low, size-size%pageSize)
}

func writePage(old, new []byte, mode CrashMode, choose chooser) {
	outcomes := 2
	if mode == Torn {
		outcomes = 3
	}
	switch choose(outcomes) {
	case 0: // lost
	case 1:
		copy(old, new)
	case 2:
		for at := 0; at < len(old); at += sectorSize {
			if end := min(at+sectorSize, len(old)); choose(2) == 1 {
				copy(old[at:end], new[at:end])
			}
		}
	}
}

// count sums the sizes below n and sets how many names each node has.
func count(n *inode, seen map[*inode]bool) int64 {
	n.names++
	if seen[n] {
		return 0
	}
	seen[n] = true
	sum := int64(len(n.cache))
	for _, sub := range n.entries {
		sum += count(sub, seen)
	}
	return sum
}

// Flip turns one bit of a file over, in the cache and on the device.
func (f *FS) Flip(name string, off int64, bit uint) error {
	return f.rot(name, off, 1, func(b []byte) { b[0] ^= 1 << (bit % 8) })
}

// Mangle puts bytes over those of a file, in the cache and on the device. What
// would lie past the end is left out.
func (f *FS) Mangle(name string, from int64, data []byte) error {
	return f.rot(name, from, int64(len(data)), func(b []byte) { copy(b, data) })
}

func (f *FS) rot(name string, off, n int64, change func([]byte)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, err := f.findLocked(name)
	if err == nil && (node.dir || off < 0 || off >= int64(len(node.cache))) {
		err = syscall.EINVAL
	}
	if err != nil {
		return fail("damage", name, err)
	}
	change(node.cache[off:min(off+n, int64(len(node.cache)))])
	if off < int64(len(node.dev)) {
		change(node.dev[off:min(off+n, int64(len(node.dev)))])
	}
	return nil
}

// Evict drops a file from the page cache: ReadAtNoWait answers ErrCold until the
// pages are read or written again.
func (f *FS) Evict(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, err := f.findLocked(name)
	if err != nil {
		return fail("evict", name, err)
	}
	node.chill()
	return nil
}

// OnDevice is what a power loss that keeps nothing unsynced leaves of a file; false
// when it leaves no such file.
func (f *FS) OnDevice(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.root
	for _, part := range parts(name) {
		if at = at.durable[part]; at == nil {
			return nil, false
		}
	}
	return bytes.Clone(at.dev), !at.dir
}
