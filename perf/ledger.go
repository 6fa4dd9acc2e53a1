package perf

import (
	"encoding/json"
	"fmt"
	"os"
)

// ledger says what a producing run got acknowledged, so that a drain, after whatever befell the broker in between, can tell what was
// lost.
type ledger struct {
	Generator uint64       `json:"generator,string"`
	Lanes     []ledgerLane `json:"lanes"`
}

// ledgerLane lists the acknowledged sequences of one lane as runs: from, to (exclusive), from, to, ...
type ledgerLane struct {
	Topic  string   `json:"topic"`
	Queue  int      `json:"queue"`
	Stream uint32   `json:"stream"`
	Runs   []uint64 `json:"acknowledged"`

	bits *bitset // what Runs say; the sender's own while the run lives
}

func (l *ledgerLane) acked() *bitset {
	if l.bits == nil {
		l.bits = new(bitset)
		for i := 0; i+1 < len(l.Runs); i += 2 {
			for n := l.Runs[i]; n < l.Runs[i+1]; n++ {
				if _, ok := l.bits.set(n); !ok {
					break
				}
			}
		}
	}
	return l.bits
}

func (r *run) ledger() *ledger {
	l := &ledger{Generator: r.generator}
	for _, s := range r.senders {
		for _, st := range s.streams {
			for i := range st.lanes {
				lane := &st.lanes[i]
				l.Lanes = append(l.Lanes, ledgerLane{Topic: lane.topic, Queue: lane.id, Stream: st.id, bits: &lane.acked})
			}
		}
	}
	return l
}

func (b *bitset) runs() (runs []uint64) {
	inside := false
	for n, end := uint64(0), b.end(); n < end; n++ {
		if has := b.has(n); has != inside {
			runs = append(runs, n)
			inside = has
		}
	}
	if inside {
		runs = append(runs, b.end())
	}
	return runs
}

func (l *ledger) write(file string) error {
	for i := range l.Lanes {
		l.Lanes[i].Runs = l.Lanes[i].acked().runs()
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

func readLedger(file string) (*ledger, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	l := new(ledger)
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", file, err)
	}
	return l, nil
}
