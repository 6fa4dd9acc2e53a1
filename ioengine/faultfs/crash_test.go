package faultfs

import (
	"bytes"
	"fmt"
	"testing"
)

func TestCrashStatesAreAllSubsets(t *testing.T) {
	f := New()
	h := durable(t, f, "f", bytes.Repeat([]byte("o"), 3*pageSize))
	write(t, h, []byte("n"), 0)
	write(t, h, []byte("n"), 2*pageSize)
	create(t, f, "g")
	seen := map[string]bool{}
	for name, state := range f.CrashStates(8) {
		b := content(t, state, "f")
		key := fmt.Sprintf("%c%c%c %t", b[0], b[pageSize], b[2*pageSize], exists(state, "g"))
		if seen[key] {
			t.Errorf("%s: %s came before", name, key)
		}
		seen[key] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d states: %v", len(seen), seen)
	}
	n := 0
	for range f.CrashStates(7) { // too few for all: prefixes, singles, all but one
		n++
	}
	if n != 9 {
		t.Errorf("%d states", n)
	}
}
