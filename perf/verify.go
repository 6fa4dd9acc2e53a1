package perf

import (
	"fmt"
	"slices"
)

// Verification says what was checked and what was found. Everything but Sent, Acknowledged, Received, Unknown, Foreign and Overtaken
// must be zero.
type Verification struct {
	OK           bool  `json:"ok"`
	Sent         int64 `json:"sent"`
	Acknowledged int64 `json:"acknowledged"`
	Unknown      int64 `json:"unknown"` // sent, but the answer never came: stored or not
	findings
	Lost          int64    `json:"lost"`          // acknowledged (or between others of their lane), and not read
	AnswerGaps    int64    `json:"answerGaps"`    // queue offsets that no answer named, between others, that unknown outcomes do not explain
	AnswerRepeats int64    `json:"answerRepeats"` // queue offsets that two answers named
	AnswerOrder   int64    `json:"answerOrder"`   // queue offsets not above one that was answered before the request was sent
	AnswerQueue   int64    `json:"answerQueue"`   // answers that named another queue
	NotRead       int64    `json:"notRead"`       // queue offsets up to the end that were not reached; messages that did not come
	Problems      []string `json:"problems,omitempty"`
}

func (v *Verification) bad(strict bool) bool {
	wrong := v.Corrupt + v.Duplicated + v.Reordered + v.Misplaced + v.OffsetGaps + v.OffsetBack + v.Lost + v.AnswerGaps +
		v.AnswerRepeats + v.AnswerOrder + v.AnswerQueue + v.NotRead
	if strict {
		wrong += v.Overtaken
	}
	return wrong != 0
}

func (v *Verification) problem(format string, args ...any) {
	if len(v.Problems) < maxProblems {
		v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
	}
}

func (r *run) verify(ledger *ledger) *Verification {
	v := &Verification{}
	r.verifyAnswers(v)
	r.verifyRead(v)
	switch {
	case ledger != nil:
		r.verifyLedger(v, ledger)
	case len(r.senders) > 0 && len(r.pullers) > 0:
		r.verifyLedger(v, r.ledger())
	case len(r.pullers) > 0:
		for _, q := range r.pullQueues() {
			if holes := q.holes(q.began == 0); holes > 0 && r.config.Tag == "" {
				v.Lost += holes
				v.problem("%s queue %d of %s: %d messages missing between others of their stream", q.queue.topic, q.queue.id, q.queue.addr, holes)
			}
		}
	}
	v.OK = !v.bad(r.config.StrictOrder)
	return v
}

// verifyAnswers checks what the broker said about what it stored: every queue's offsets contiguous, none twice, in order.
func (r *run) verifyAnswers(v *Verification) {
	offsets := map[*queue]*bitset{}
	var failed int64
	for _, s := range r.senders {
		v.Sent += s.sentAll
		v.Acknowledged += s.total
		v.Unknown += s.unknowns
		v.AnswerRepeats += s.repeats
		v.AnswerOrder += s.unsorted
		v.AnswerQueue += s.askew
		if !r.config.Shared {
			v.AnswerOrder += s.below
		}
		for code, n := range s.errors {
			if code != codeUnsent {
				failed += n
			}
		}
		v.Problems = append(v.Problems, s.problems...)
		for _, q := range s.queues() {
			if offsets[q.queue] == nil {
				offsets[q.queue] = new(bitset)
			}
			v.AnswerRepeats += offsets[q.queue].merge(&q.offsets)
		}
	}
	if r.config.Shared {
		return
	}
	for _, q := range r.target.queues {
		b := offsets[q]
		if b == nil || q.sparse {
			continue
		}
		// A request without an answer, or with an error, may have been stored all the same.
		if gaps := int64(b.end()) - b.count; gaps > failed {
			v.AnswerGaps += gaps - failed
			v.problem("%s queue %d of %s: %d queue offsets between %d and %d were never given out", q.topic, q.id, q.addr, gaps, q.base, q.base+int64(b.end()))
		}
	}
}

func (r *run) verifyRead(v *Verification) {
	for _, q := range r.pullQueues() {
		v.findings.add(&q.found)
		v.Problems = append(v.Problems, q.problems...)
		if limit := q.limit.Load(); limit != noLimit && q.next < limit {
			v.NotRead += limit - q.next
			v.problem("%s queue %d of %s: read up to offset %d of %d", q.queue.topic, q.queue.id, q.queue.addr, q.next, limit)
		} else if limit != noLimit && q.expect >= 0 && q.expect < limit {
			v.OffsetGaps += limit - q.expect
			v.problem("%s queue %d of %s: nothing at offsets %d to %d", q.queue.topic, q.queue.id, q.queue.addr, q.expect, limit-1)
		}
	}
	for _, p := range r.pullers {
		v.Problems = append(v.Problems, p.problems...)
	}
	if want := r.config.Count; r.kind == "consume" && v.Received < want && r.interrupted.Load() == 0 {
		v.NotRead += want - v.Received
		v.problem("%d messages came, not %d, and nothing more for %v", v.Received, want, r.config.Idle)
	}
}

// verifyLedger counts what was acknowledged and has not been read.
func (r *run) verifyLedger(v *Verification, l *ledger) {
	type place struct {
		topic string
		queue int
	}
	seen := map[place][]*queueCheck{}
	for _, q := range r.pullQueues() {
		at := place{q.queue.topic, q.queue.id}
		seen[at] = append(seen[at], q.queueCheck)
	}
	for i := range l.Lanes {
		lane := &l.Lanes[i]
		var read bitset
		checks := seen[place{lane.Topic, lane.Queue}]
		if checks == nil && !slices.Contains(r.config.topicNames(), lane.Topic) {
			continue
		}
		for _, q := range checks {
			if c := q.lanes[laneKey{l.Generator, lane.Stream}]; c != nil {
				read.merge(&c.seen)
			}
		}
		if lost := lane.acked().missing(&read); lost > 0 {
			v.Lost += lost
			v.problem("%s queue %d: %d acknowledged messages of stream %d are lost", lane.Topic, lane.Queue, lost, lane.Stream)
		}
	}
}
