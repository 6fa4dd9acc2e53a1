package netpath

import (
	"bytes"
	"testing"
)

// A lane's places are bounded twice: by number, and by the bytes that the waiting requests hold.
func TestLaneIsBounded(t *testing.T) {
	for _, tt := range []struct {
		rule   string
		places int
		frame  int
		takes  int // besides the one that runs
	}{
		{"by places", 3, 10, 3},
		{"by bytes", 1000, maxLaneBytes / 4, 3},
		{"a frame above all bytes fits into an idle lane", 1000, maxLaneBytes + 1, 0},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			lane := NewLane(1, tt.places)
			entered, hold := make(chan bool, 1), make(chan bool)
			frame := make([]byte, tt.frame)
			var ran int
			run := func(_ *Conn, got []byte) {
				if len(got) != tt.frame {
					t.Errorf("a frame of %d bytes, want %d", len(got), tt.frame)
				}
				if ran++; ran == 1 {
					entered <- true
					<-hold
				}
			}
			if !lane.Submit(nil, frame, run) {
				t.Fatal("an idle lane refused")
			}
			receive(t, entered)
			taken := 0
			for lane.Submit(nil, frame, run) {
				if taken++; taken > tt.places {
					t.Fatal("more than it has places for")
				}
			}
			if taken != tt.takes {
				t.Errorf("%d taken, want %d", taken, tt.takes)
			}
			if n := lane.Waiting(); n != taken+1 {
				t.Errorf("%d in hand, want %d: the one that runs counts", n, taken+1)
			}
			close(hold)
			lane.Close()
			if ran != taken+1 || lane.Waiting() != 0 || lane.bytes.Load() != 0 {
				t.Errorf("%d ran; %d requests and %d bytes left", ran, lane.Waiting(), lane.bytes.Load())
			}
		})
	}
}

// What is handed over is a copy: the reactor's frame is used again at once.
func TestLaneCopiesTheFrame(t *testing.T) {
	lane := NewLane(1, 1)
	got, hold := make(chan []byte, 1), make(chan bool)
	frame := []byte("first")
	lane.Submit(nil, frame, func(_ *Conn, f []byte) { <-hold; got <- f })
	copy(frame, "other")
	close(hold)
	if f := receive(t, got); !bytes.Equal(f, []byte("first")) {
		t.Errorf("got %q", f)
	}
	lane.Close()
}

// A lane that is given up ends what runs, and nothing else.
func TestAbandonedLane(t *testing.T) {
	lane := NewLane(1, 10)
	entered, hold := make(chan bool, 5), make(chan bool)
	ran := 0
	run := func(*Conn, []byte) { ran++; entered <- true; <-hold }
	for range 5 {
		lane.Submit(nil, []byte("x"), run)
	}
	receive(t, entered)
	lane.Abandon()
	close(hold)
	lane.Close()
	if ran != 1 || lane.Waiting() != 0 || lane.bytes.Load() != 0 {
		t.Errorf("%d ran; %d requests and %d bytes left", ran, lane.Waiting(), lane.bytes.Load())
	}
}
