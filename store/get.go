package store

import (
	"errors"
	"slices"

	"github.com/ringmq/ringmq/ioengine"
)

// In the walk of one message: before this, broker/pull.go checked the request; after this, it sends the parts of the log named here.

// GetStatus is what a look into a queue found (GetMessageStatus).
type GetStatus int

// The statuses, in the words of the original.
const (
	GetFound               GetStatus = iota
	GetNoMatchedMessage              // looked at, all filtered out
	GetMessageWasRemoving            // retention took them meanwhile
	GetOffsetOverflowOne             // offset is the queue's end: nothing new yet
	GetOffsetOverflowBadly           // offset is behind the queue's end
	GetOffsetTooSmall                // offset is before the queue's start
	GetNoMessageInQueue              // the queue is empty
	GetNoMatchedLogicQueue           // there is no such queue
)

var getStatusNames = [...]string{"FOUND", "NO_MATCHED_MESSAGE", "MESSAGE_WAS_REMOVING", "OFFSET_OVERFLOW_ONE", "OFFSET_OVERFLOW_BADLY",
	"OFFSET_TOO_SMALL", "NO_MESSAGE_IN_QUEUE", "NO_MATCHED_LOGIC_QUEUE"}

func (s GetStatus) String() string { return getStatusNames[s] }

// Part is a run of records that lie back to back in the log.
type Part struct {
	Off int64 // log offset
	N   int   // bytes
}

// GetLimits bounds one look (maxTransferBytesOnMessageInMemory and its kin).
type GetLimits struct {
	BytesInMemory, CountInMemory int
	BytesOnDisk, CountOnDisk     int
	// MemoryBytes is how far behind the log's end a record counts as in memory.
	MemoryBytes int64
	// FilterBytes bounds the consume queue units looked at when a filter lets little pass (maxFilterMessageSize).
	FilterBytes int
}

// Get is the scratch of one reader: the question and the answer.
type Get struct {
	Limits GetLimits
	// Codes are the tag hashes asked for; empty: every message.
	Codes []int32

	Status   GetStatus
	Next     int64 // nextBeginOffset
	Min, Max int64 // of the queue
	Parts    []Part
	Count    int
	Bytes    int

	entries [getChunk]Entry
}

const getChunk = 64

// Do looks for at most maxMsgs messages of q from offset on. wait tells that it may wait for the disk; otherwise ioengine.ErrCold means
// that it would have had to.
func (g *Get) Do(s *Store, q *ConsumeQueue, offset int64, maxMsgs int, wait bool) error {
	g.Parts, g.Count, g.Bytes, g.Next = g.Parts[:0], 0, 0, 0
	g.Range(q)
	switch {
	case q == nil:
		g.Status = GetNoMatchedLogicQueue
		return nil
	case g.Max == 0:
		g.Status = GetNoMessageInQueue
		return nil
	case offset < g.Min:
		g.Status, g.Next = GetOffsetTooSmall, g.Min
		return nil
	case offset == g.Max:
		g.Status, g.Next = GetOffsetOverflowOne, offset
		return nil
	case offset > g.Max:
		g.Status, g.Next = GetOffsetOverflowBadly, g.Max
		return nil
	}
	return g.scan(s, q, offset, maxMsgs, wait)
}

// Range fills in the offsets of q alone, 0 and 0 where there is no such queue.
func (g *Get) Range(q *ConsumeQueue) {
	g.Min, g.Max = 0, 0
	if q != nil {
		g.Min, g.Max = q.Min(), q.Max()
	}
}

func (g *Get) scan(s *Store, q *ConsumeQueue, offset int64, maxMsgs int, wait bool) error {
	logMin := s.log.MinOffset()
	g.Status, g.Next = GetNoMatchedMessage, offset
	for scanned, limit := 0, g.mostScanned(maxMsgs); scanned < limit; {
		want := min(getChunk, limit-scanned)
		if len(g.Codes) == 0 {
			want = min(want, maxMsgs-g.Count)
		}
		n, err := read(q, g.Next, g.entries[:want], wait)
		if err != nil {
			if errors.Is(err, ioengine.ErrCold) && g.Count > 0 {
				return nil
			}
			return err
		}
		if n == 0 {
			return nil
		}
		// After the entries: each was dispatched when its record was published, so none of them lies behind this.
		logEnd := s.log.Published()
		for i := range g.entries[:n] {
			e := &g.entries[i]
			if e.Size > 0 && e.PhysicalOffset >= logMin && e.PhysicalOffset+int64(e.Size) <= logEnd && g.matches(e) {
				if g.full(e, maxMsgs, logEnd) {
					return nil
				}
				g.add(e)
			} else if e.PhysicalOffset < logMin && g.Count == 0 {
				g.Status = GetMessageWasRemoving
			}
			g.Next++
			scanned++
		}
		if g.Count >= maxMsgs {
			return nil
		}
	}
	return nil
}

// mostScanned is the number of units looked at: what the filter may, and no less than the messages that one answer can have.
func (g *Get) mostScanned(maxMsgs int) int {
	return max(g.Limits.FilterBytes/UnitSize, min(maxMsgs, g.Limits.CountInMemory), 1)
}

func read(q *ConsumeQueue, from int64, dst []Entry, wait bool) (int, error) {
	if wait {
		return q.ReadWait(from, dst)
	}
	return q.Read(from, dst)
}

func (g *Get) matches(e *Entry) bool {
	return len(g.Codes) == 0 || slices.Contains(g.Codes, int32(e.TagsCode))
}

// full tells that e would be too much. The first message is never too much.
func (g *Get) full(e *Entry, maxMsgs int, logEnd int64) bool {
	if g.Count == 0 {
		return false
	}
	bytes, count := g.Limits.BytesInMemory, g.Limits.CountInMemory
	if logEnd-e.PhysicalOffset > g.Limits.MemoryBytes {
		bytes, count = g.Limits.BytesOnDisk, g.Limits.CountOnDisk
	}
	return g.Count >= min(count, maxMsgs) || g.Bytes+int(e.Size) > bytes
}

func (g *Get) add(e *Entry) {
	if g.Count == 0 {
		g.Status = GetFound
	}
	g.Count++
	g.Bytes += int(e.Size)
	if n := len(g.Parts); n > 0 && g.Parts[n-1].Off+int64(g.Parts[n-1].N) == e.PhysicalOffset {
		g.Parts[n-1].N += int(e.Size)
		return
	}
	g.Parts = append(g.Parts, Part{e.PhysicalOffset, int(e.Size)})
}
