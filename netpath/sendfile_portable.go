package netpath

import (
	"bufio"
	"io"
	"sync"
	"time"
)

// The writing half of a stream: what sendfile_linux.go does for native connections. File
// ranges are read into the writer's buffer, on its goroutine, behind the response head, so
// both leave in one write, or one TLS record.

const writerBuffer = 64 << 10

// writers are used only while a stream has something to write; idle streams hold none.
var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writerBuffer) }}

// writeLoop is the stream's writing goroutine. It ends when the stream is closing and
// everything is written, or given up.
func (s *stream) writeLoop() {
	for {
		s.mu.Lock()
		for s.queue == nil && !s.closing {
			s.cond.Wait()
		}
		chain := s.queue
		s.queue, s.queueEnd = nil, nil
		s.mu.Unlock()
		if chain == nil {
			return
		}
		err := s.writeChain(chain)
		s.mu.Lock()
		s.spend(chain)
		s.mu.Unlock()
		s.tell()
		if err != nil {
			s.c.Close(err)
			<-s.quit
			return
		}
	}
}

// writeChain writes the segments from head. Their content is the writer's until spend.
func (s *stream) writeChain(head *segment) error {
	w := writers.Get().(*bufio.Writer)
	w.Reset(streamWriter{s})
	defer func() {
		w.Reset(nil)
		writers.Put(w)
	}()
	for seg := head; seg != nil; seg = seg.next {
		var err error
		if seg.file {
			err = copyRange(w, seg)
		} else {
			_, err = w.Write(seg.buf[seg.pos:])
		}
		if err != nil {
			return err
		}
	}
	return w.Flush()
}

// copyRange reads the segment's file range straight into the free part of w's buffer.
func copyRange(w *bufio.Writer, seg *segment) error {
	for off, left := seg.fileOff, seg.fileLen; left > 0; {
		if w.Available() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		room := w.AvailableBuffer()
		room = room[:min(left, cap(room))]
		n, err := pread(seg.fd, room, off)
		if err != nil {
			return err
		}
		if n == 0 {
			return errFileShort
		}
		if _, err := w.Write(room[:n]); err != nil {
			return err
		}
		off += int64(n)
		left -= n
	}
	return nil
}

// spend puts a chain where the reactor will find it. s.mu is held.
func (s *stream) spend(chain *segment) {
	if chain == nil {
		return
	}
	last := chain
	for last.next != nil {
		last = last.next
	}
	last.next = s.spent
	s.spent = chain
}

// streamWriter is the connection with a deadline for each piece and a count of them.
type streamWriter struct{ s *stream }

func (w streamWriter) Write(p []byte) (written int, err error) {
	s := w.s
	for len(p) > 0 {
		s.mu.Lock()
		deadline := s.deadline
		if !s.closing {
			deadline = time.Now().Add(s.c.Reactor().limits.PartialFrameTimeout)
		}
		s.conn.SetWriteDeadline(deadline)
		s.mu.Unlock()
		n, err := s.conn.Write(p[:min(len(p), writerBuffer)])
		written += n
		s.progress.Store(monoNanos())
		s.mu.Lock()
		s.writes++
		s.bytesOut += uint64(n)
		s.mu.Unlock()
		if err != nil {
			if isTimeout(err) {
				err = ErrStalled
			}
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

var _ io.Writer = streamWriter{}
