package netpath

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ranges of files that are not in memory. Whoever queues a range has seen its pages in the page cache; but it may wait for long behind a
// socket that takes no more, and its pages may leave meanwhile. sendfile would then wait for the disk, and with it every connection of the
// reactor (164 µs at the median, tens of ms in the worst case). So a range that is not sent in the turn it was queued in is asked for
// again, for about a microsecond a MiB, and where it is cold a goroutine reads a part of it into memory, which takes the place of that part
// at the head of the output. Order is kept, because nothing else of the connection is written meanwhile.
//
// Where the kernel has no cachestat (before 6.5) or refuses it, nothing is known, and each range that had to wait is read in this way: a
// copy more, and never a wait.

const coldChunk = 256 << 10 // read at once for one connection

// isCold says whether sendfile may have to wait for the disk at the range's beginning.
func (r *Reactor) isCold(s *segment) bool {
	return s.turn != r.count.turns && !r.srv.resident(s.fd, s.fileOff, min(s.fileLen, fileChunk))
}

// resident asks the kernel whether n bytes of fd from off are in the page cache, and not still on their way to it.
func resident(fd int, off int64, n int) bool {
	for last, at := off+int64(n)-1, off-1; at < last; {
		at = min(last, at+arrivesTogether)
		if onItsWay(fd, at) {
			return false
		}
	}
	return cached(fd, off, n)
}

// arrivesTogether is what the kernel reads from the disk by one operation, or nearly so.
const arrivesTogether = 256 << 10

// onItsWay says that the byte at off cannot be read without waiting. Where the file system does not tell, it is false.
func onItsWay(fd int, off int64) bool {
	var b byte
	iov := unix.Iovec{Base: &b, Len: 1}
	_, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
	return errno == unix.EAGAIN
}

// cached counts the pages of the range that are in the page cache, those that are being read among them.
func cached(fd int, off int64, n int) bool {
	// n of cachestat is in bytes, its answer in pages.
	page := int64(unix.Getpagesize())
	where := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}
	var found unix.Cachestat_t
	_, _, errno := unix.RawSyscall6(unix.SYS_CACHESTAT, uintptr(fd), uintptr(unsafe.Pointer(&where)), uintptr(unsafe.Pointer(&found)), 0, 0, 0)
	pages := (off+int64(n)-1)/page - off/page + 1
	return errno == 0 && found.Cache >= uint64(pages)
}

// readCold has a goroutine read the beginning of the range that c's output starts with.
func (r *Reactor) readCold(c *Conn) {
	s := c.head
	n := min(s.fileLen, coldChunk)
	if r.srv.budget.over() {
		n = min(n, scarceRead) // what is read has to be kept
	}
	s.reading = true
	r.coldReads++
	r.count.coldReads++
	fd, off := s.fd, s.fileOff
	go func() {
		r.srv.cold <- struct{}{}
		buf := make([]byte, n)
		var got int
		got, s.readErr = pread(fd, buf, off)
		<-r.srv.cold
		r.write(letter{kind: letterCold, conn: c, seg: s, frame: buf[:got]})
	}()
}

// coldArrived puts what was read of the range s in front of the rest of it.
func (r *Reactor) coldArrived(c *Conn, s *segment, data []byte) {
	r.coldReads--
	s.reading = false
	if c.gone {
		r.recycle(s)
		return
	}
	if s.readErr != nil {
		r.drop(c, fmt.Errorf("read file range: %w", s.readErr))
		return
	}
	if len(data) == 0 {
		r.drop(c, errFileShort)
		return
	}
	m := r.newSegment()
	m.buf, m.foreign = data, true
	s.fileOff += int64(len(data))
	s.fileLen -= len(data)
	c.outFile -= len(data)
	c.outMem += len(data)
	c.head, m.next = m, s
	if s.fileLen == 0 {
		if m.next = s.next; m.next == nil {
			c.tail = m
		}
		r.recycle(s)
	}
	c.stalledSince = 0 // the disk held it up, not the peer
	r.touch(c)
}
