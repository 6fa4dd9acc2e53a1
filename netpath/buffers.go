package netpath

// bufferClasses are the sizes buffers are kept in; the upper two take answers of 256 KiB and of 1 MiB with their heads. A larger buffer is made for its one
// use and left to the collector: it is rare, and keeping it would pin the memory of the worst moment.
var bufferClasses = [...]int{4 << 10, 16 << 10, 64 << 10, 260 << 10, maxKeptBuffer}

const (
	maxKeptBuffer = 1<<20 + 64<<10
	maxKeptBytes  = 8 << 20
	outputBuffer  = 16 << 10 // a first output buffer; append grows it
	sealedBuffer  = 48 << 10 // an output buffer this full is followed by another instead of being grown
)

// buffers is one reactor's free list. Only its thread touches it.
// Invariant: kept == the capacities of all free buffers <= maxKeptBytes.
type buffers struct {
	free [len(bufferClasses)][][]byte
	kept int
}

// get returns an empty buffer with room for n bytes; the caller owns it until put. Where its class has none, one of the next class will
// do: those that grew while answers were written come back there, and would else be made anew and kept without end.
func (b *buffers) get(n int) []byte {
	for i, size := range bufferClasses {
		if n > size {
			continue
		}
		if len(b.free[i]) > 0 {
			return b.take(i)
		}
		if i+1 < len(bufferClasses) && len(b.free[i+1]) > 0 {
			return b.take(i + 1)
		}
		return make([]byte, 0, size)
	}
	return make([]byte, 0, n)
}

func (b *buffers) take(class int) []byte {
	list := b.free[class]
	buf := list[len(list)-1]
	list[len(list)-1] = nil
	b.free[class] = list[:len(list)-1]
	b.kept -= cap(buf)
	return buf[:0]
}

// put takes a buffer over. append may have given it any capacity; it is kept in the
// largest class it satisfies.
func (b *buffers) put(buf []byte) {
	c := cap(buf)
	if c < bufferClasses[0] || c > maxKeptBuffer || b.kept+c > maxKeptBytes {
		return
	}
	class := 0
	for class+1 < len(bufferClasses) && c >= bufferClasses[class+1] {
		class++
	}
	b.free[class] = append(b.free[class], buf[:0])
	b.kept += c
}

// Releaser is told when a file range or borrowed memory is no longer needed: its bytes were handed to the
// kernel or copied, or its connection was closed. Exactly once, on the reactor's thread.
type Releaser interface{ Release() }

// segment is one piece of a connection's output: bytes, or a range of a file.
// The connection's chain owns it until it is sent; then it returns to the reactor's list.
type segment struct {
	next *segment

	// buf[pos:] is still to be sent. Owned by the segment; lent to the handler between Begin and End.
	buf      []byte
	pos      int
	foreign  bool // buf came through Send or Borrow: it is not ours to append to or to keep
	borrowed bool // buf is ours for this turn only; rel is its owner's, of the last of several
	sending  bool // a prepared operation of a ring refers to buf: it is neither appended to nor given away

	file      bool // fileOff and fileLen are what is still to be sent of fd
	fd        int
	fileOff   int64
	fileLen   int
	rel       Releaser
	fileTotal int    // what fileLen started with
	turn      uint64 // Reactor.count.turns when it was queued: its pages were in memory then
	// reading: a goroutine reads from fd, and posts a letterCold; readErr is how that ended, the goroutine's until the letter. The
	// segment stays the head of its connection's output, or is left alone when that is dropped.
	reading bool
	readErr error
}

func (s *segment) empty() bool { return !s.file && s.pos == len(s.buf) }

func (r *Reactor) newSegment() *segment {
	s := r.segments
	if s == nil {
		return new(segment)
	}
	r.segments = s.next
	r.segmentCount--
	s.next = nil
	return s
}

// recycle takes back a segment that was sent or given up, and releases its file or what it borrowed.
func (r *Reactor) recycle(s *segment) {
	if s.buf != nil && !s.foreign {
		r.bufs.put(s.buf)
	}
	rel := s.rel
	*s = segment{}
	if r.segmentCount < maxKeptSegments {
		s.next = r.segments
		r.segments = s
		r.segmentCount++
	}
	if rel != nil {
		rel.Release()
	}
}

const maxKeptSegments = 4096
