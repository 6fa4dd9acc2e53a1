//go:build linux

package uring

import (
	"bytes"
	"math"
	"net"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func needs(t testing.TB, has func(Features) bool) {
	t.Helper()
	f, err := Probe()
	if err != nil {
		t.Skip(err)
	}
	if !has(f) {
		t.Skip("this kernel's io_uring does not have it")
	}
}

func socketPair(t testing.TB) (a, b int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func TestAcceptMultishot(t *testing.T) {
	needs(t, func(f Features) bool { return f.MultishotAccept })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	listener, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer listener.Close()
	r := newRing(t, Options{})
	e := r.Next()
	e.AcceptMultishot(int(listener.Fd()))
	e.SetData(1)
	require.NoError(t, r.Submit())
	for range 5 {
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		accepted := next(t, r)
		require.NoError(t, accepted.Err())
		require.EqualValues(t, 1, accepted.Data)
		require.NotZero(t, accepted.Flags&CompletionMore)
		fd := int(accepted.Result)
		defer unix.Close(fd)
		for command, flag := range map[int]int{unix.F_GETFD: unix.FD_CLOEXEC, unix.F_GETFL: unix.O_NONBLOCK} {
			got, err := unix.FcntlInt(uintptr(fd), command, 0)
			require.NoError(t, err)
			require.NotZero(t, got&flag)
		}
		require.NoError(t, func() error { _, err := c.Write([]byte("hi")); return err }())
		p := make([]byte, 10)
		r.Next().Recv(fd, p, 0)
		require.EqualValues(t, 2, next(t, r).Result)
		require.Equal(t, "hi", string(p[:2]))
	}
	cancel(t, r, 1, 0)
}

// cancel ends the operation with that data, awaits its last completion, and what Cancel itself says.
func cancel(t testing.TB, r *Ring, data uint64, want int32) {
	t.Helper()
	const self = 1 << 40
	e := r.Next()
	e.Cancel(data)
	e.SetData(self)
	for seen := 0; seen < 2; seen++ {
		c := next(t, r)
		if c.Data == self {
			require.Equal(t, want, c.Result)
			if want != 0 {
				return
			}
			continue
		}
		require.Equal(t, data, c.Data)
		require.ErrorIs(t, c.Err(), unix.ECANCELED)
		require.Zero(t, c.Flags&CompletionMore)
	}
}

func TestCancel(t *testing.T) {
	r := newRing(t, Options{})
	a, b := socketPair(t)
	p := make([]byte, 1)
	e := r.Next()
	e.Recv(a, p, 0)
	e.SetData(7)
	require.NoError(t, r.Submit())
	cancel(t, r, 7, 0)
	_, err := unix.Write(b, []byte("x"))
	require.NoError(t, err)
	n, err := unix.Read(a, p)
	require.NoError(t, err)
	require.Equal(t, 1, n, "the cancelled receive took nothing")
	cancel(t, r, 7, -int32(unix.ENOENT))
}

func TestRecvMultishotWithABufferRing(t *testing.T) {
	needs(t, func(f Features) bool { return f.MultishotRecv && f.BufferRing })
	r := newRing(t, Options{})
	const count, size, group = 4, 64, 9
	b, err := r.NewBufferRing(group, count, size)
	require.NoError(t, err)
	_, err = r.NewBufferRing(group, count, size)
	require.ErrorIs(t, err, unix.EEXIST)
	require.NotErrorIs(t, err, errOtherThread)
	local, peer := socketPair(t)
	data := make([]byte, 6*size+10)
	for i := range data {
		data[i] = byte(i * 7 / 3)
	}
	_, err = unix.Write(peer, data)
	require.NoError(t, err)
	arm := func() {
		e := r.Next()
		e.RecvMultishot(local, group)
		e.SetData(3)
	}
	var stream []byte
	piece := func(n int) Completion {
		c := next(t, r)
		require.EqualValues(t, n, c.Result)
		require.NotZero(t, c.Flags&CompletionMore, "it goes on")
		require.NotZero(t, c.Flags&CompletionBuffer)
		stream = append(stream, b.Bytes(c)...)
		return c
	}
	noneLeft := func() {
		c := next(t, r)
		require.ErrorIs(t, c.Err(), unix.ENOBUFS)
		require.Zero(t, c.Flags&(CompletionMore|CompletionBuffer))
		require.Nil(t, b.Bytes(c))
		b.GiveBack(c) // came without a buffer: nothing to give
	}

	arm()
	taken := []Completion{piece(size), piece(size), piece(size), piece(size)}
	noneLeft()
	arm()
	noneLeft()
	for _, i := range []int{3, 1, 0} {
		b.GiveBack(taken[i])
	}
	arm()
	second := []Completion{piece(size), piece(size), piece(10)}
	for i, first := range []int{3, 1, 0} {
		require.Equal(t, taken[first].Flags>>16, second[i].Flags>>16, "buffers come in the order in which they were given back")
	}
	require.Equal(t, data, stream)
	b.GiveBack(second[2])

	// Many rounds: the tail of the group passes its 16 bits, the receive is never armed again.
	for i := range 1<<16 + 100 {
		if _, err := unix.Write(peer, data[:1+i%size]); err != nil {
			t.Fatal(err)
		}
		c := next(t, r)
		if int(c.Result) != 1+i%size || c.Flags&CompletionMore == 0 || !bytes.Equal(b.Bytes(c), data[:c.Result]) {
			t.Fatalf("round %d: %+v", i, c)
		}
		b.GiveBack(c)
	}

	require.NoError(t, unix.Shutdown(peer, unix.SHUT_WR))
	c := next(t, r)
	require.EqualValues(t, 0, c.Result)
	require.Zero(t, c.Flags&(CompletionMore|CompletionBuffer), "the peer has closed")
	b.GiveBack(c)
	require.NoError(t, b.Free())
	require.NoError(t, b.Free(), "twice")
	arm()
	require.ErrorIs(t, next(t, r).Err(), unix.ENOBUFS, "the group is gone")
}

func TestBufferRingSizes(t *testing.T) {
	r := newRing(t, Options{})
	for _, s := range [][2]int{{0, 64}, {-1, 64}, {3, 64}, {1 << 16, 64}, {4, 0}, {4, -1}, {4, math.MaxInt}} {
		_, err := r.NewBufferRing(1, s[0], s[1])
		require.ErrorIs(t, err, unix.EINVAL, "%d buffers of %d bytes", s[0], s[1])
	}
}

func TestSend(t *testing.T) {
	r := newRing(t, Options{})
	a, b := socketPair(t)
	require.NoError(t, unix.SetsockoptInt(a, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10))
	data := make([]byte, 256<<10)
	for i := range data {
		data[i] = byte(i / 251)
	}
	r.Next().Send(a, data, unix.MSG_DONTWAIT)
	short := int(next(t, r).Result)
	require.Positive(t, short)
	require.Less(t, short, len(data), "a short send")
	r.Next().Send(a, data[short:], unix.MSG_DONTWAIT)
	require.ErrorIs(t, next(t, r).Err(), unix.EAGAIN)

	received := make(chan []byte)
	go func() {
		var all []byte
		p := make([]byte, 10000)
		for len(all) < len(data) {
			n, err := unix.Read(b, p)
			if n <= 0 || err != nil {
				break
			}
			all = append(all, p[:n]...)
		}
		received <- all
	}()
	rest := data[short:]
	head := rest[:1000]
	iov := []unix.Iovec{{Base: &head[0]}, {Base: &rest[1000]}}
	iov[0].SetLen(len(head))
	iov[1].SetLen(len(rest) - 1000)
	m := &unix.Msghdr{Iov: &iov[0]}
	m.SetIovlen(len(iov))
	r.Next().SendMsg(a, m, unix.MSG_WAITALL)
	c := next(t, r)
	require.NoError(t, c.Err())
	// Kernels before 5.19 do not know MSG_WAITALL here.
	for rest = rest[c.Result:]; len(rest) > 0; rest = rest[c.Result:] {
		r.Next().Send(a, rest, 0)
		c = next(t, r)
		require.NoError(t, c.Err())
	}
	require.Equal(t, data, <-received)
	runtime.KeepAlive(m)

	require.NoError(t, unix.Close(b))
	r.Next().Send(a, data[:1], unix.MSG_NOSIGNAL)
	require.ErrorIs(t, next(t, r).Err(), unix.EPIPE)
}

func TestPoll(t *testing.T) {
	r := newRing(t, Options{})
	a, b := socketPair(t)
	e := r.Next()
	e.PollMultishot(a, unix.POLLIN)
	e.SetData(5)
	require.NoError(t, r.Submit())
	p := make([]byte, 1)
	for range 3 {
		_, err := unix.Write(b, p)
		require.NoError(t, err)
		c := next(t, r)
		require.NotZero(t, c.Result&unix.POLLIN)
		require.NotZero(t, c.Flags&CompletionMore)
		_, err = unix.Read(a, p)
		require.NoError(t, err)
	}
	cancel(t, r, 5, 0)
	r.Next().Poll(a, unix.POLLIN|unix.POLLOUT)
	c := next(t, r)
	require.EqualValues(t, unix.POLLOUT, c.Result)
	require.Zero(t, c.Flags&CompletionMore, "tells once")
}

// An operation in flight holds its socket open: the peer sees the end when the operation is gone.
func TestCloseEndsWhatIsInFlight(t *testing.T) {
	needs(t, func(f Features) bool { return f.MultishotRecv && f.BufferRing })
	r := newRing(t, Options{})
	b, err := r.NewBufferRing(1, 4, 64)
	require.NoError(t, err)
	p := make([]byte, 8)
	var peers []int
	for _, begin := range []func(fd int){
		func(fd int) { r.Next().Recv(fd, p, 0) },
		func(fd int) { r.Next().Read(fd, p, 0) },
		func(fd int) { r.Next().RecvMultishot(fd, 1) },
		func(fd int) { r.Next().PollMultishot(fd, unix.POLLIN) },
	} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(pair[1])
		begin(pair[0])
		require.NoError(t, r.Wait(time.Millisecond)) // the wake-up's READ is in flight as well
		require.NoError(t, unix.Close(pair[0]))
		peers = append(peers, pair[1])
	}
	require.NoError(t, r.Close())
	require.NoError(t, b.Free())
	limit := unix.NsecToTimeval(int64(patience))
	for i, peer := range peers {
		require.NoError(t, unix.SetsockoptTimeval(peer, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
		n, err := unix.Read(peer, make([]byte, 1))
		for err == unix.EINTR {
			n, err = unix.Read(peer, make([]byte, 1))
		}
		require.NoError(t, err, "operation %d", i)
		require.Zero(t, n)
	}
	require.Equal(t, make([]byte, 8), p)
}

// A buffer that only the kernel knows would lie on the goroutine's stack, and the stack moves when it grows.
func TestBuffersStayInPlace(t *testing.T) {
	r := newRing(t, Options{})
	a, b := socketPair(t)
	p := make([]byte, 8) // small, of constant size, and handed to no function that lets it escape
	r.Next().Recv(a, p, 0)
	require.NoError(t, r.Submit())
	before := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	growStack(200)
	if before != uintptr(unsafe.Pointer(unsafe.SliceData(p))) {
		t.Fatal("the buffer has moved")
	}
	_, err := unix.Write(b, []byte("in place"))
	require.NoError(t, err)
	next(t, r)
	if string(p) != "in place" {
		t.Fatal("the bytes went elsewhere")
	}
}

func growStack(depth int) byte {
	var frame [1 << 10]byte
	if depth > 0 {
		frame[depth] = growStack(depth - 1)
	}
	return frame[depth/2]
}
