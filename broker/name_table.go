package broker

import (
	"sync"
	"sync/atomic"
)

// nameTable finds a value by a name that stands in a frame: no lock and no allocation for names that have been there for a while, a read
// lock for young ones. All tables of this room that the hot path asks (topics, groups, offsets, consumers, statistics) are made of it.
//
// A plain copy-on-write map would copy 100,000 names for each new one. Here new names collect in a small second map, which is merged into a
// copy of the big one when it has grown to a quarter of it; so the copying is a constant number of steps for each name. A name that
// is removed leaves its empty slot behind until the next merge.
//
// The zero value is an empty table without a limit.
type nameTable[V any] struct {
	limit int // most names with a value; 0: no limit. Set before use.

	base  atomic.Pointer[map[string]*slot[V]] // never changed once it is stored here
	fresh atomic.Int64                        // len(recent)

	mu     sync.RWMutex
	recent map[string]*slot[V] // Invariant: no name is in base and in recent
	live   int                 // slots with a value. Invariant: live <= limit
}

type slot[V any] struct{ value atomic.Pointer[V] }

// get returns the value of name, nil when there is none. It does not keep name.
func (t *nameTable[V]) get(name []byte) *V {
	base := t.base.Load()
	if base != nil {
		if s := (*base)[string(name)]; s != nil {
			return s.value.Load()
		}
	}
	if t.fresh.Load() == 0 && t.base.Load() == base {
		return nil
	}
	return t.getYoung(name)
}

// getYoung looks into both maps: a merge since get began may have moved the name from one to the other.
func (t *nameTable[V]) getYoung(name []byte) *V {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if s := t.recent[string(name)]; s != nil {
		return s.value.Load()
	}
	if base := t.base.Load(); base != nil {
		if s := (*base)[string(name)]; s != nil {
			return s.value.Load()
		}
	}
	return nil
}

// find is get for callers that hold a string.
func (t *nameTable[V]) find(name string) *V {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if s := t.slotLocked(name); s != nil {
		return s.value.Load()
	}
	return nil
}

func (t *nameTable[V]) slotLocked(name string) *slot[V] {
	if s := t.recent[name]; s != nil {
		return s
	}
	if base := t.base.Load(); base != nil {
		return (*base)[name]
	}
	return nil
}

// getOrAdd returns the value of name, and makes it where there is none. It answers nil when the table is full.
func (t *nameTable[V]) getOrAdd(name string, make func() *V) (v *V, added bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slotLocked(name)
	if s != nil {
		if v := s.value.Load(); v != nil {
			return v, false
		}
	}
	if t.limit > 0 && t.live >= t.limit {
		return nil, false
	}
	if s == nil {
		s = t.addSlotLocked(name)
	}
	v = make()
	s.value.Store(v)
	t.live++
	t.mergeLocked()
	return v, true
}

func (t *nameTable[V]) addSlotLocked(name string) *slot[V] {
	if t.recent == nil {
		t.recent = map[string]*slot[V]{}
	}
	s := &slot[V]{}
	t.recent[name] = s
	t.fresh.Store(int64(len(t.recent)))
	return s
}

// remove takes a name out and returns what it stood for, nil when there was nothing.
func (t *nameTable[V]) remove(name string) *V {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slotLocked(name)
	if s == nil {
		return nil
	}
	old := s.value.Swap(nil)
	if old != nil {
		t.live--
	}
	// A young name goes at once, so that names that come and go leave nothing behind; a settled one waits for the next merge.
	if t.recent[name] != nil {
		delete(t.recent, name)
		t.fresh.Store(int64(len(t.recent)))
	}
	return old
}

// mergeLocked makes a new base when recent has grown large against it.
func (t *nameTable[V]) mergeLocked() {
	base := t.base.Load()
	size := 0
	if base != nil {
		size = len(*base)
	}
	if len(t.recent) < 16+size/4 {
		return
	}
	merged := make(map[string]*slot[V], t.live)
	if base != nil {
		keepLive(merged, *base)
	}
	keepLive(merged, t.recent)
	t.base.Store(&merged)
	t.recent = nil
	t.fresh.Store(0)
}

func keepLive[V any](dst, src map[string]*slot[V]) {
	for name, s := range src {
		if s.value.Load() != nil {
			dst[name] = s
		}
	}
}

// all returns the values that are there now, in no order.
func (t *nameTable[V]) all() []*V {
	t.mu.RLock()
	defer t.mu.RUnlock()
	values := make([]*V, 0, t.live)
	collect := func(slots map[string]*slot[V]) {
		for _, s := range slots {
			if v := s.value.Load(); v != nil {
				values = append(values, v)
			}
		}
	}
	if base := t.base.Load(); base != nil {
		collect(*base)
	}
	collect(t.recent)
	return values
}

// size is the number of names with a value.
func (t *nameTable[V]) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.live
}
