// Package wiretap is a TCP proxy that forwards bytes unchanged between two programs that speak the remoting protocol and
// writes each frame into a file of its own, named by who spoke, the request code and the direction.
package wiretap

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
)

const (
	frameLimit  = 16 << 20 // the largest frame that RocketMQ allows
	keepLimit   = 64 << 10 // larger frames pass, but are not kept
	keepPerKind = 2        // files of one speaker, code, direction and result
)

// Recorder collects the frames of any number of taps.
type Recorder struct {
	dir string

	mu    sync.Mutex
	label string         // who is talking now; set by the run between its phases
	seen  map[string]int // files written per kind
}

// NewRecorder writes its files into dir.
func NewRecorder(dir string) *Recorder {
	return &Recorder{dir: dir, seen: map[string]int{}}
}

// Label names the program whose client connections open from now on.
func (r *Recorder) Label(label string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.label = label
}

// Tap listens on from and forwards to to. A label fixes the speaker; empty means the recorder's current one.
func (r *Recorder) Tap(from, to, label string) (io.Closer, error) {
	l, err := net.Listen("tcp", from)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			who := label
			if who == "" {
				who = r.label
			}
			r.mu.Unlock()
			go r.serve(conn, to, who)
		}
	}()
	return l, nil
}

// wire is one tapped connection. The opaque numbers of the two directions are independent, so there is one table each.
type wire struct {
	rec  *Recorder
	who  string
	mu   sync.Mutex
	code [2]map[int32]int // requests that await their reply, by the direction they went
}

func (r *Recorder) serve(client net.Conn, to, who string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	w := &wire{rec: r, who: who, code: [2]map[int32]int{{}, {}}}
	done := make(chan struct{}, 2)
	go func() { w.copy(server, client, 0); done <- struct{}{} }()
	go func() { w.copy(client, server, 1); done <- struct{}{} }()
	<-done
}

func (w *wire) copy(dst, src net.Conn, dir int) {
	defer dst.Close()
	for {
		var head [4]byte
		if _, err := io.ReadFull(src, head[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > frameLimit {
			return
		}
		frame := make([]byte, 4+n)
		copy(frame, head[:])
		if _, err := io.ReadFull(src, frame[4:]); err != nil {
			return
		}
		w.keep(frame, dir)
		if _, err := dst.Write(frame); err != nil {
			return
		}
	}
}

func (w *wire) keep(frame []byte, dir int) {
	h, err := parse(frame)
	if err != nil {
		return
	}
	kind := fmt.Sprintf("%s-", w.who)
	if h.flag&1 == 0 {
		if h.flag&2 == 0 {
			w.mu.Lock()
			w.code[dir][h.opaque] = h.code
			w.mu.Unlock()
		}
		kind += fmt.Sprintf("%03d-%s-request", h.code, name(h.code))
		if dir == 1 {
			kind += "-from-server"
		}
	} else {
		w.mu.Lock()
		code, ok := w.code[1-dir][h.opaque]
		delete(w.code[1-dir], h.opaque)
		w.mu.Unlock()
		if !ok {
			return
		}
		kind += fmt.Sprintf("%03d-%s-response", code, name(code))
		if dir == 0 {
			kind += "-from-client"
		}
		if h.code != 0 {
			kind += fmt.Sprintf("-code%d", h.code)
		}
	}
	w.rec.write(kind, frame)
}

func (r *Recorder) write(kind string, frame []byte) {
	if len(frame) > keepLimit {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[kind]++
	n := r.seen[kind]
	if n > keepPerKind {
		return
	}
	file := kind + ".bin"
	if n > 1 {
		file = fmt.Sprintf("%s-%d.bin", kind, n)
	}
	if err := os.WriteFile(filepath.Join(r.dir, file), frame, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "wiretap:", err)
	}
}

func name(code int) string {
	if n, ok := codeNames[code]; ok {
		return n
	}
	return "unnamed"
}

type header struct {
	code   int
	flag   int
	opaque int32
}

var errShort = errors.New("frame too short for its header")

func parse(frame []byte) (header, error) {
	if len(frame) < 8 {
		return header{}, errShort
	}
	mark := binary.BigEndian.Uint32(frame[4:])
	n := int(mark & 0xffffff)
	if 8+n > len(frame) {
		return header{}, errShort
	}
	b := frame[8 : 8+n]
	if mark>>24 == 1 {
		if len(b) < 13 {
			return header{}, errShort
		}
		return header{
			code:   int(int16(binary.BigEndian.Uint16(b))),
			opaque: int32(binary.BigEndian.Uint32(b[5:])),
			flag:   int(binary.BigEndian.Uint32(b[9:])),
		}, nil
	}
	var j struct {
		Code   int   `json:"code"`
		Flag   int   `json:"flag"`
		Opaque int32 `json:"opaque"`
	}
	err := json.Unmarshal(b, &j)
	return header{j.Code, j.Flag, j.Opaque}, err
}
