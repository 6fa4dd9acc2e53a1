package faultfs

import "slices"

// syncOrder lets syncs of one file overlap and finish in any order, as they do on
// a real device, without an older snapshot undoing what a newer sync made durable.
type syncOrder struct {
	started int64
	// running are the numbers of the syncs that have begun and not finished.
	running []int64
	// done are ranges that a finished sync wrote while an older one was running.
	done []doneSync
}

type doneSync struct{ number, from, to int64 }

// sync copies [from, to), or with to < 0 everything, as it is when the sync
// begins, and gives it to the device when gates and faults allow it. Only those
// bytes are read: the tail owner may be storing behind them.
func (h *file) sync(kind Kind, from, to int64) error {
	op, err := h.fs.begin(h.op(kind, from, max(0, to-from)))
	h.fs.mu.Lock()
	if closed := h.readyLocked(kind, 0, anyAccess); closed != nil {
		h.fs.mu.Unlock()
		return closed
	}
	node, size := h.node, int64(len(h.node.cache))
	if to < 0 {
		to = size
	}
	snapshot := slices.Clone(node.cache[min(from, size):min(to, size)])
	number := node.syncs.begin()
	h.fs.mu.Unlock()

	if err == nil {
		err = h.fs.gate(op)
	}

	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err != nil {
		node.lose(from, snapshot)
	} else {
		node.persist(number, from, snapshot, size)
	}
	node.syncs.end(number, from, from+int64(len(snapshot)), err == nil)
	return err
}

func (o *syncOrder) begin() int64 {
	o.started++
	o.running = append(o.running, o.started)
	return o.started
}

func (o *syncOrder) end(number, from, to int64, wrote bool) {
	o.running = slices.DeleteFunc(o.running, func(n int64) bool { return n == number })
	if len(o.running) == 0 {
		o.done = nil
	} else if wrote {
		o.done = append(o.done, doneSync{number, from, to})
	}
}

// persist writes a snapshot to the device image. Bytes that an earlier failed sync
// lost and nobody changed since stay lost.
func (n *inode) persist(number, from int64, snapshot []byte, size int64) {
	newest := true
	type kept struct {
		at    int64
		bytes []byte
	}
	var keep []kept
	for _, d := range n.syncs.done {
		if d.number < number {
			continue
		}
		newest = false
		if to := min(d.to, int64(len(n.dev))); d.from < to {
			keep = append(keep, kept{d.from, slices.Clone(n.dev[d.from:to])})
		}
	}
	if newest {
		n.dev = resized(n.dev, size)
	}
	for at := from; at < from+int64(len(snapshot)) && at < int64(len(n.dev)); {
		end := min(at-at%sectorSize+sectorSize, from+int64(len(snapshot)), int64(len(n.dev)))
		n.persistSector(at, snapshot[at-from:end-from])
		at = end
	}
	for _, k := range keep {
		copy(n.dev[k.at:], k.bytes)
	}
}

// persistSector writes bytes that lie in one sector. If one of its lost bytes has
// changed since, somebody stored there again and all of them are dirty.
func (n *inode) persistSector(at int64, b []byte) {
	known := min(at, int64(len(n.lost)))
	lost, snap := n.lost[known:], n.snap[known:]
	for i := range min(len(b), len(lost)) {
		if lost[i] && snap[i] != b[i] {
			clear(lost[:min(len(b), len(lost))])
			break
		}
	}
	if len(lost) == 0 {
		copy(n.dev[at:], b)
		return
	}
	for i := range b {
		if i >= len(lost) || !lost[i] {
			n.dev[at+int64(i)] = b[i]
		}
	}
}

// lose notes that the bytes of a failed sync which the device lacks are clean now.
func (n *inode) lose(from int64, snapshot []byte) {
	if need := len(n.cache); len(n.lost) < need {
		n.lost = append(n.lost, make([]bool, need-len(n.lost))...)
		n.snap = resized(n.snap, int64(need))
	}
	for i, b := range snapshot {
		at := from + int64(i)
		if at >= int64(len(n.lost)) {
			break
		}
		if at >= int64(len(n.dev)) || n.dev[at] != b {
			n.lost[at], n.snap[at] = true, b
		}
	}
}

// resized is b with size bytes; new ones are zero.
func resized(b []byte, size int64) []byte {
	if int64(len(b)) > size {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// redirty says that [from, to) was written again, through a call: the next sync
// writes it even if the bytes are the same. (A store through a window is found by
// comparing.)
func (n *inode) redirty(from, to int64) {
	if from = min(from, int64(len(n.lost))); from < to {
		clear(n.lost[from:min(to, int64(len(n.lost)))])
	}
}
