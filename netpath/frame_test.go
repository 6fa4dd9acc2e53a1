package netpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// makeFrame builds a frame as a client would send it.
func makeFrame(serialization byte, header, body string) []byte {
	f := binary.BigEndian.AppendUint32(nil, uint32(markSize+len(header)+len(body)))
	f = binary.BigEndian.AppendUint32(f, uint32(serialization)<<24|uint32(len(header)))
	return append(append(f, header...), body...)
}

func jsonFrame(body string) []byte { return makeFrame(serializationJSON, `{"code":10}`, body) }

func TestCut(t *testing.T) {
	good := jsonFrame("hello")
	prefix := func(length, mark uint32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, length), mark)
	}
	tests := []struct {
		name string
		buf  []byte
		max  int
		used int
		err  string
	}{
		{"nothing is no frame", nil, MaxFrame, 0, ""},
		{"three bytes of length are awaited", good[:3], MaxFrame, 0, ""},
		{"a length alone is awaited", good[:4], MaxFrame, 0, ""},
		{"all but one byte is awaited", good[:len(good)-1], MaxFrame, 0, ""},
		{"a whole frame is cut", good, MaxFrame, len(good), ""},
		{"what follows is left", append(append([]byte{}, good...), good[:7]...), MaxFrame, len(good), ""},
		{"a binary header is cut", makeFrame(1, "0123456789", ""), MaxFrame, 18, ""},
		{"a frame of just the mark is cut", prefix(4, 0), MaxFrame, 8, ""},
		{"the limit counts the length bytes", good, len(good), len(good), ""},
		{"one byte over the limit is refused", good, len(good) - 1, 0, "too large"},
		{"16 MiB and one byte is refused by its length alone", prefix(MaxFrame-LengthSize+1, 0)[:4], MaxFrame, 0, "too large"},
		{"the largest frame is awaited", prefix(MaxFrame-LengthSize, 0), MaxFrame, 0, ""},
		{"a length of 4 GiB is not negative", prefix(0xFFFFFFFF, 0)[:4], MaxFrame, 0, "too large"},
		{"length 0 is refused", prefix(0, 0)[:4], MaxFrame, 0, "no room for the mark"},
		{"length 3 is refused", prefix(3, 0), MaxFrame, 0, "no room for the mark"},
		{"a header longer than its frame is refused before the frame is there", prefix(100, 97), MaxFrame, 0, "longer than its frame"},
		{"a header as long as its frame is awaited", prefix(100, 96), MaxFrame, 0, ""},
		{"a header over 64 KiB is refused", prefix(1<<20, MaxHeader+1), MaxFrame, 0, "header is too long"},
		{"a header of 64 KiB is awaited", prefix(1<<20, MaxHeader), MaxFrame, 0, ""},
		{"serialization 2 is refused", prefix(100, 2<<24), MaxFrame, 0, "serialization"},
		{"serialization 255 is refused", prefix(100, 255<<24), MaxFrame, 0, "serialization"},
		{"an HTTP request is refused", []byte("GET / HTTP/1.1\r\n\r\n"), MaxFrame, 0, "too large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			frame, used, err := Cut(tt.buf, tt.max)
			if used != tt.used {
				t.Errorf("used %d, want %d", used, tt.used)
			}
			if used > 0 && (!bytes.Equal(frame, tt.buf[LengthSize:used]) || cap(frame) != len(frame)) {
				t.Errorf("frame %q, capacity %d", frame, cap(frame))
			}
			var fe *FrameError
			switch {
			case tt.err == "" && err != nil:
				t.Errorf("error %v", err)
			case tt.err != "" && (!errors.As(err, &fe) || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want a FrameError about %q", err, tt.err)
			}
		})
	}
}

func TestCheckFirst(t *testing.T) {
	json := jsonFrame("")
	tests := []struct {
		name   string
		buf    []byte
		enough bool
		bad    bool
	}{
		{"8 bytes do not show the header", json[:8], false, false},
		{"a brace proves JSON", json[:9], true, false},
		{"JSON without a brace is refused", makeFrame(0, "xyz", ""), true, true},
		{"a first frame without header is refused", makeFrame(0, "", "abc"), true, true},
		{"a binary header may start with any byte", makeFrame(1, "\xff", "")[:9], true, false},
		{"a bad length is refused at once", []byte{0xff, 0, 0, 0}, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			enough, err := checkFirst(tt.buf, MaxFrame)
			if enough != tt.enough || (err != nil) != tt.bad {
				t.Errorf("enough %v, error %v", enough, err)
			}
		})
	}
}

// FuzzCut: whatever arrives, and however it is split, the same frames come out, and none
// reaches beyond the input.
func FuzzCut(f *testing.F) {
	f.Add(jsonFrame("hello"), uint16(1))
	f.Add(append(jsonFrame("a"), makeFrame(1, "0123456789012345678901", "body")...), uint16(7))
	f.Add([]byte{0, 0, 0, 4, 0, 0, 0, 0}, uint16(3))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, uint16(2))
	f.Add([]byte("GET / HTTP/1.1\r\n"), uint16(4))
	f.Add([]byte{0, 0, 0, 9, 0, 0, 0, 9, '{', '}'}, uint16(5))
	f.Fuzz(func(t *testing.T, data []byte, chunk uint16) {
		const limit = 1 << 16
		cutAll := func(in []byte) (frames [][]byte, n int, err error) {
			for {
				frame, used, err := Cut(in[n:len(in):len(in)], limit)
				if used == 0 {
					if frame != nil {
						t.Fatal("a frame that used nothing")
					}
					return frames, n, err
				}
				if err != nil || used > len(in)-n || used > limit || len(frame) != used-LengthSize || !bytes.Equal(frame, in[n+LengthSize:n+used]) {
					t.Fatalf("used %d of %d, frame %d, error %v", used, len(in)-n, len(frame), err)
				}
				frames = append(frames, frame)
				n += used
			}
		}
		want, end, wantErr := cutAll(data)
		var got [][]byte
		var held []byte
		var gotErr error
		size := int(chunk)%16 + 1
		for rest := data; len(rest) > 0 && gotErr == nil; {
			k := min(size, len(rest))
			held = append(held, rest[:k]...)
			rest = rest[k:]
			frames, n, err := cutAll(held)
			for _, frame := range frames {
				got = append(got, bytes.Clone(frame))
			}
			held, gotErr = held[n:], err
		}
		if len(got) != len(want) || (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("%d frames, %v in pieces; %d frames, %v at once (%d bytes)", len(got), gotErr, len(want), wantErr, end)
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d: %q in pieces, %q at once", i, got[i], want[i])
			}
		}
	})
}

func TestCutDoesNotAllocate(t *testing.T) {
	buf := bytes.Repeat(jsonFrame("hello"), 10)
	if n := testing.AllocsPerRun(100, func() {
		for rest := buf; len(rest) > 0; {
			_, used, _ := Cut(rest, MaxFrame)
			rest = rest[used:]
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCut(b *testing.B) {
	buf := jsonFrame("hello")
	for b.Loop() {
		Cut(buf, MaxFrame)
	}
}
