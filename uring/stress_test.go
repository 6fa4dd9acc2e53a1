//go:build linux

package uring

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Three rings on three threads, one for a file and two for the ends of a socket, with buffers on the heap that nobody but an in-flight table
// holds on to, under a collector that never rests and wake-ups at any moment. It is meant for -race; every byte is verified.
func TestStress(t *testing.T) {
	needs(t, func(f Features) bool { return f.MultishotRecv && f.BufferRing && f.RegisteredBuffers })
	var over atomic.Bool
	time.AfterFunc(2*time.Second, func() { over.Store(true) })
	fd := newFile(t, 0)
	out, in := socketPair(t)

	var owners, noise sync.WaitGroup
	var rings [3]atomic.Pointer[Ring]
	own := func(i int, what string, work func(r *Ring) error) {
		owners.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r, err := New(Options{Entries: 32})
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			defer r.Close()
			rings[i].Store(r)
			if err := work(r); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			t.Logf("%s: %+v", what, r.Counts())
		})
	}
	own(0, "file", func(r *Ring) error { return stressFile(t, r, fd, &over) })
	own(1, "sender", func(r *Ring) error { return stressSend(t, r, out, &over) })
	own(2, "receiver", func(r *Ring) error { return stressReceive(t, r, in) })
	done := make(chan struct{})
	noise.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
				for i := range rings {
					if r := rings[i].Load(); r != nil {
						r.Wake()
					}
				}
			}
		}
	})
	owners.Wait()
	close(done)
	noise.Wait()
}

// fileSlot is one block of the file, written, synced or read, one operation at a time.
type fileSlot struct {
	buffer  []byte // on the heap, new for each operation; nil: the slot's part of the registered arena is used
	seed    uint64 // of what was written last
	reading bool
}

const (
	slots    = 16
	slotSize = 4096
)

// fill makes n bytes that tell their slot and their seed.
func fill(p []byte, seed uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], seed+uint64(i)*0x9e3779b97f4a7c15)
	}
}

func filled(p []byte, seed uint64) bool {
	for i := 0; i < len(p); i += 8 {
		if binary.LittleEndian.Uint64(p[i:]) != seed+uint64(i)*0x9e3779b97f4a7c15 {
			return false
		}
	}
	return true
}

func stressFile(t *testing.T, r *Ring, fd int, over *atomic.Bool) error {
	const syncData = slots
	arena, err := NewArena(slots * slotSize)
	if err != nil {
		return err
	}
	defer arena.Free()
	if err := r.RegisterBuffers(arena.Bytes); err != nil {
		return err
	}
	var table [slots]fileSlot
	random := rand.New(rand.NewPCG(1, 2))
	fixed := func(i int) []byte { return arena.Bytes[i*slotSize : (i+1)*slotSize] }
	begin := func(i int, reading bool) {
		s, e := &table[i], r.Next()
		s.reading, s.buffer = reading, nil
		onHeap := random.IntN(2) == 0
		p := fixed(i)
		if onHeap {
			p = make([]byte, slotSize)
			s.buffer = p
		}
		if !reading {
			s.seed = random.Uint64()
			fill(p, s.seed)
		} else {
			clear(p)
		}
		switch off := int64(i) * slotSize; {
		case reading && onHeap:
			e.Read(fd, p, off)
		case reading:
			e.ReadFixed(fd, p, off, 0)
		case onHeap:
			e.Write(fd, p, off)
		default:
			e.WriteFixed(fd, p, off, 0)
		}
		if random.IntN(4) == 0 {
			e.Async()
		}
		e.SetData(uint64(i))
	}
	inFlight, verified := slots, 0
	for i := range slots {
		begin(i, false)
	}
	for inFlight > 0 {
		c, ok := r.Completed()
		if !ok {
			if err := r.Wait(patience); err != nil {
				return err
			}
			continue
		}
		inFlight--
		if err := c.Err(); err != nil {
			return err
		}
		if c.Data == syncData {
			continue
		}
		s, i := &table[c.Data], int(c.Data)
		p := s.buffer
		if p == nil {
			p = fixed(i)
		}
		if c.Result != slotSize || s.reading && !filled(p, s.seed) {
			t.Errorf("slot %d, reading %v: %d bytes, or others than were written", i, s.reading, c.Result)
		}
		if s.reading {
			verified++
		}
		if over.Load() && s.reading {
			continue
		}
		begin(i, !s.reading)
		inFlight++
		if random.IntN(64) == 0 {
			e := r.Next()
			e.Fdatasync(fd)
			e.SetData(syncData)
			inFlight++
		}
	}
	t.Logf("%d blocks read back", verified)
	if verified < slots {
		t.Error("too few")
	}
	return nil
}

// streamByte is what the stream between the sockets has at a place.
func streamByte(at int64) byte { return byte(at ^ at>>8 ^ at>>17) }

func stressSend(t *testing.T, r *Ring, fd int, over *atomic.Bool) error {
	random := rand.New(rand.NewPCG(3, 4))
	sent := int64(0)
	for !over.Load() {
		p := make([]byte, 1+random.IntN(10_000))
		for i := range p {
			p[i] = streamByte(sent + int64(i))
		}
		// One at a time: sends of one stream that are in flight together have no order.
		for len(p) > 0 {
			r.Next().Send(fd, p, unix.MSG_NOSIGNAL)
			c, ok := r.Completed()
			for !ok {
				if err := r.Wait(patience); err != nil {
					return err
				}
				c, ok = r.Completed()
			}
			if err := c.Err(); err != nil {
				return err
			}
			sent += int64(c.Result)
			p = p[c.Result:]
		}
	}
	t.Logf("%d bytes sent", sent)
	return unix.Shutdown(fd, unix.SHUT_WR)
}

func stressReceive(t *testing.T, r *Ring, fd int) error {
	b, err := r.NewBufferRing(1, 8, 1500)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(5, 6))
	var held []Completion // buffers that are given back late, in any order
	received, armed := int64(0), false
	for {
		if !armed {
			r.Next().RecvMultishot(fd, 1)
			armed = true
		}
		c, ok := r.Completed()
		if !ok {
			if err := r.Wait(patience); err != nil {
				return err
			}
			continue
		}
		armed = c.Flags&CompletionMore != 0
		switch {
		case c.Err() == unix.ENOBUFS:
			for _, h := range held {
				b.GiveBack(h)
			}
			held = held[:0]
			continue
		case c.Err() != nil:
			return c.Err()
		case c.Result == 0:
			t.Logf("%d bytes received", received)
			if received == 0 {
				t.Error("none")
			}
			return b.Free()
		}
		for i, x := range b.Bytes(c) {
			if x != streamByte(received+int64(i)) {
				t.Errorf("byte %d is wrong", received+int64(i))
				break
			}
		}
		received += int64(c.Result)
		held = append(held, c)
		random.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		if random.IntN(2) == 0 {
			b.GiveBack(held[len(held)-1])
			held = held[:len(held)-1]
		}
	}
}
