package perf

import "sync/atomic"

// ackTimes says when the latest messages of one lane were acknowledged: the sender writes, the reader of the same run asks how long
// after that a message came. One word holds time and sequence, so that neither waits for the other.
type ackTimes struct{ slots [ackSlots]atomic.Int64 }

const (
	ackSlots = 4096
	// sequenceBits of a word tell a message from those that had its slot before; the rest is the time, 78 hours of it.
	sequenceBits = 15
)

func ackWord(sequence uint64, at int64) int64 {
	return at<<sequenceBits | int64(sequence/ackSlots)&(1<<sequenceBits-1)
}

func (a *ackTimes) set(sequence uint64, at int64) {
	a.slots[sequence%ackSlots].Store(ackWord(sequence, at))
}

// get is the time of a message's acknowledgement. One that has not been acknowledged yet is seen no later than its acknowledgement:
// that is now.
func (a *ackTimes) get(sequence uint64, now int64) int64 {
	word := a.slots[sequence%ackSlots].Load()
	if at := word >> sequenceBits; word == ackWord(sequence, at) && at > 0 {
		return min(at, now)
	}
	return now
}

// shareAckTimes lets the run's readers see when its senders got their acknowledgements.
func (r *run) shareAckTimes() {
	times := map[*queue][]*ackTimes{}
	for _, s := range r.senders {
		for _, st := range s.streams {
			for i := range st.lanes {
				l := &st.lanes[i]
				if l.acks == nil {
					l.acks = new(ackTimes)
				}
				all := times[l.queue]
				if all == nil {
					all = make([]*ackTimes, r.config.Conns)
				}
				all[st.id] = l.acks
				times[l.queue] = all
			}
		}
	}
	for _, q := range r.pullQueues() {
		q.acks = times[q.queue]
	}
}
