package broker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

func TestNameTableAgainstMap(t *testing.T) {
	var table nameTable[int]
	table.limit = 200
	model := map[string]int{}
	dice := rand.New(rand.NewPCG(1, 2))
	for step := range 20_000 {
		name := fmt.Sprintf("name-%d", dice.IntN(300))
		switch dice.IntN(3) {
		case 0:
			got := table.remove(name)
			want, ok := model[name]
			if ok != (got != nil) || ok && *got != want {
				t.Fatalf("step %d: remove %s: %v, want %d %t", step, name, got, want, ok)
			}
			delete(model, name)
		case 1:
			v, added := table.getOrAdd(name, func() *int { return &step })
			want, ok := model[name]
			switch {
			case ok && (added || *v != want):
				t.Fatalf("step %d: %s was there, got %v %t", step, name, v, added)
			case !ok && len(model) == 200 && v != nil:
				t.Fatalf("step %d: full table took %s", step, name)
			case !ok && len(model) < 200 && !added:
				t.Fatalf("step %d: %s was not added", step, name)
			case added:
				model[name] = step
			}
		}
		got, want := table.get([]byte(name)), model[name]
		if _, ok := model[name]; ok != (got != nil) || ok && *got != want || table.find(name) != got {
			t.Fatalf("step %d: get %s: %v, want %d %t", step, name, got, want, ok)
		}
		if table.size() != len(model) {
			t.Fatalf("step %d: size %d, want %d", step, table.size(), len(model))
		}
	}
	if len(table.all()) != len(model) {
		t.Fatalf("all has %d, want %d", len(table.all()), len(model))
	}
}

// A name that was added before a lookup began is found by it, whatever merges go on.
func TestNameTableFindsWhileItGrows(t *testing.T) {
	var table nameTable[int]
	const names = 5000
	added := make(chan int, names)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for n := range added {
				if v := table.get(fmt.Appendf(nil, "n%d", n)); v == nil || *v != n {
					t.Errorf("n%d: %v", n, v)
				}
				if v := table.get(fmt.Appendf(nil, "n%d", n/2)); v == nil || *v != n/2 {
					t.Errorf("n%d: %v", n/2, v)
				}
			}
		})
	}
	for n := range names {
		table.getOrAdd(fmt.Sprintf("n%d", n), func() *int { return &n })
		added <- n
	}
	close(added)
	readers.Wait()
}

func TestNameTableGetAllocatesNothing(t *testing.T) {
	var table nameTable[int]
	for n := range 100 {
		table.getOrAdd(fmt.Sprintf("some-topic-name-%d", n), func() *int { return &n })
	}
	if table.fresh.Load() == 0 {
		table.getOrAdd("some-topic-name-young", func() *int { return new(int) })
	}
	for _, name := range [][]byte{[]byte("some-topic-name-1"), []byte("some-topic-name-99"), []byte("some-topic-name-young"), []byte("missing")} {
		if n := testing.AllocsPerRun(100, func() { table.get(name) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkNameTableGet(b *testing.B) {
	var table nameTable[int]
	for n := range 100_000 {
		table.getOrAdd(fmt.Sprintf("some-topic-name-%d", n), func() *int { return &n })
	}
	name := []byte("some-topic-name-4711")
	b.ReportAllocs()
	for b.Loop() {
		table.get(name)
	}
}
