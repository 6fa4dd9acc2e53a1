package netpath

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The walk of one message ends here: conn.go settles a connection at the end of the turn; its
// responses are written, and the file ranges that broker/pull.go queued behind their heads
// are sent from the page cache. The next step is the client's.

const (
	flushPerTurn = 4 << 20 // written for one connection before the others get their turn
	fileChunk    = 1 << 20 // sent by one call, which may wait for the disk
	maxIovecs    = 256
)

// flushSocket writes c's output until it is out, the socket is full, or the turn's share is
// used. All bytes up to the next file range leave with one call; MSG_MORE keeps the kernel
// from sending a response head by itself when its file range is about to follow.
func (r *Reactor) flushSocket(c *Conn) {
	c.advance(0)
	for share := flushPerTurn; c.head != nil && !c.head.reading; {
		if share <= 0 {
			r.touch(c) // the socket still takes bytes, so nothing would wake us
			return
		}
		n, want, errno := 0, 0, unix.Errno(0)
		if c.head.file {
			if r.isCold(c.head) {
				r.readCold(c)
				return
			}
			n, errno = r.sendRange(c)
		} else {
			n, want, errno = r.sendBytes(c)
		}
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			c.blocked = true
			return
		default:
			r.drop(c, fmt.Errorf("write: %w", errno))
			return
		}
		if n == 0 && c.head.file {
			r.drop(c, errFileShort)
			return
		}
		r.count.bytesOut += uint64(n)
		r.worked(c, n/effortBytes)
		c.lastWrite, c.stalledSince = r.now.MonoNanos, 0
		c.advance(n)
		share -= n
		if n < want {
			c.blocked = true // no need to ask again: it is full
			return
		}
	}
}

// sendBytes sends the bytes at the head of c's output, up to the next file range.
func (r *Reactor) sendBytes(c *Conn) (n, want int, errno unix.Errno) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	p, count := &r.poll, 0
	s := c.head
	for ; s != nil && !s.file && count < maxIovecs; s = s.next {
		if b := s.buf[s.pos:]; len(b) > 0 {
			p.iov[count].Base = unsafe.SliceData(b)
			p.iov[count].SetLen(len(b))
			want += len(b)
			count++
		}
	}
	if s != nil {
		flags |= unix.MSG_MORE
	}
	r.count.writes++
	var res uintptr
	if count == 1 {
		res, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(p.iov[0].Base)), uintptr(want), flags, 0, 0)
	} else {
		p.msg.Iov = &p.iov[0]
		p.msg.SetIovlen(count)
		res, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&p.msg)), flags)
	}
	for i := range count {
		p.iov[i].Base = nil // the segment may be given away while we wait
	}
	if errno != 0 {
		return 0, want, errno
	}
	return int(res), want, 0
}

// sendRange sends from the file range at the head of c's output. The file's position is not
// used: other readers share fd. The call may read from disk, so Go's scheduler is told of it.
func (r *Reactor) sendRange(c *Conn) (int, unix.Errno) {
	s := c.head
	r.poll.off = s.fileOff
	r.count.sendFiles++
	n, _, errno := unix.Syscall6(unix.SYS_SENDFILE, uintptr(c.fd), uintptr(s.fd),
		uintptr(unsafe.Pointer(&r.poll.off)), uintptr(min(s.fileLen, fileChunk)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
