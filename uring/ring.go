//go:build linux

package uring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	raw "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// Flags that the raw layer does not know yet.
const (
	setupSubmitAll    = raw.IORING_SETUP_SUBMIT_ALL // linux 5.18
	setupSingleIssuer = 1 << 12                     // linux 6.0
	setupDeferTaskrun = 1 << 13                     // linux 6.1

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3 // linux 5.11
	featExtArg     = 1 << 8

	registerEnableRings = 12
	registerBufRing     = 22 // linux 5.19
	unregisterBufRing   = 23

	maxEntries     = 1 << 15
	maxCompletions = 1 << 16
)

// Options of a ring.
type Options struct {
	// Entries bounds the submissions prepared at a time, 1 to 32,768; rounded up to a power of two. 0: 64.
	Entries int
	// Completions bounds the results that wait to be taken, Entries at least; more are kept by the kernel, at a cost. 0: twice Entries.
	Completions int
	// Disabled makes a ring that takes nothing until Enable, whose thread becomes the owner: for rings that are made by one goroutine and
	// used by another.
	Disabled bool
	// RawSubmit says that nothing submitted here can block: sockets, eventfds.
	RawSubmit bool
	// Shared makes a ring that has no owner: any thread may call its methods, one at a time. What is done is posted without a call by the
	// thread that submitted it, whose sleep in another system call ends early for that. Nobody may Wait on it.
	Shared bool
	// Parked makes Wait put the goroutine to sleep and not its thread: Go's scheduler gets its processor back at once. Its monitor, which else looks for
	// processors to take back, needs a millisecond or more of looking every 20 µs after each one that it had to take. For waits that are long and for
	// whom some microseconds more do not matter.
	Parked bool
}

// Ring is one io_uring. All methods but Wake belong to its thread.
type Ring struct {
	fd       int
	raw      bool
	deferred bool // DEFER_TASKRUN: completions appear in our own calls only

	// The submission queue. tail is ours and ahead of *kTail by what is prepared and not submitted.
	kHead, kTail *uint32
	entries      []Entry
	mask, tail   uint32

	// The completion queue. head is what we have taken; *cHead lags behind it within Completed only.
	cHead, cTail *uint32
	completions  []Completion
	cMask, head  uint32

	maps [][]byte

	// wakeFD is an eventfd that one READ of this ring waits on. state is asleep while the owner waits in the kernel: only then is a Wake
	// worth a system call. wakeMu is held for that call and while Close takes wakeFD away: a late Wake must not write its eight bytes into
	// whatever file has got the number since.
	wakeMu    sync.Mutex
	wakeFD    int
	wakeArmed bool
	state     atomic.Uint32
	// park is wakeFD where the kernel adds to it for what is done, and nothing of the ring reads it: Options.Parked. sink is what is read there.
	park *os.File
	sink [8]byte

	// What a wait with a limit points to. Here and not on the stack of enter, which Go may move: it does not see pointers in integers.
	limit    kernelTimespec
	limitArg waitArg

	counts Counts
}

// wakeSink is where the wake-ups of all rings read their eventfd to; nobody looks at it. It is no ring's own memory because a READ may be
// cancelled later than its ring is closed.
var wakeSink [8]byte

// Counts is what a ring did since it was made. The owner's.
type Counts struct {
	Submitted uint64 // with the ring's own READs of its eventfd
	Completed uint64 // without
	Enters    uint64 // calls into the kernel
	Waits     uint64 // those of them that waited
}

// Completion is the result of one operation.
type Completion struct {
	Data   uint64 // Entry.SetData's
	Result int32  // what the system call would have returned; below 0: -errno
	Flags  uint32
}

// Flags of a completion.
const (
	CompletionBuffer = 1 << 0 // the buffer's number is in the upper 16 bits of Flags
	// CompletionMore: a multishot operation goes on. Without it the operation has ended, whatever its result: submit it anew.
	CompletionMore = 1 << 1
)

// The answers of the kernel that mean a bug here, in words. They are made once: Submit allocates nothing.
var (
	errOtherThread = fmt.Errorf("io_uring ring belongs to another thread: lock the goroutine to its thread before New or Enable: %w", unix.EEXIST)
	errNotEnabled  = fmt.Errorf("io_uring ring is disabled: call Enable first: %w", unix.EBADFD)
)

// Err is the operation's error, or nil. Nothing is allocated.
func (c Completion) Err() error {
	if c.Result < 0 {
		return unix.Errno(-c.Result)
	}
	return nil
}

// wakeData marks the completions of the ring's own wake-up: callers never see them, and must not use it.
const wakeData = math.MaxUint64

const (
	awake uint32 = iota
	asleep
	woken
)

// New makes a ring. Its error wraps ErrUnsupported where the kernel or a container refuses io_uring, and then is a *RefusedError.
func New(o Options) (*Ring, error) {
	if o.Entries <= 0 {
		o.Entries = 64
	}
	o.Entries = min(o.Entries, maxEntries)
	if o.Completions > 0 {
		o.Completions = min(max(o.Completions, o.Entries), maxCompletions)
	}
	r := &Ring{fd: -1, wakeFD: -1, raw: o.RawSubmit}
	p, err := r.setup(o)
	if err != nil {
		return nil, err
	}
	if err := r.allowed(); err != nil {
		r.Close()
		return nil, err
	}
	if err := r.mapQueues(p); err != nil {
		r.Close()
		return nil, fmt.Errorf("map io_uring queues: %w", err)
	}
	if err := r.openWake(o.Parked); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Ring) openWake(parked bool) (err error) {
	if !parked {
		if r.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			return fmt.Errorf("eventfd: %w", err)
		}
		return nil
	}
	if r.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	r.park = os.NewFile(uintptr(r.wakeFD), "eventfd of an io_uring")
	fd := int32(r.wakeFD)
	return r.register("have an eventfd told of completions", raw.IORING_REGISTER_EVENTFD, unsafe.Pointer(&fd), 1)
}

// setup asks for the best kind of ring that the kernel has.
func (r *Ring) setup(o Options) (*raw.IOURingParams, error) {
	if !layoutFits {
		return nil, &RefusedError{unix.ENOSYS, "this program's is for 64-bit little-endian machines", "set ioEngine=mmap"}
	}
	base := raw.IORING_SETUP_CLAMP
	if o.Completions > 0 {
		base |= raw.IORING_SETUP_CQSIZE
	}
	if o.Disabled {
		base |= raw.IORING_SETUP_R_DISABLED
	}
	// SUBMIT_ALL: one bad entry fails alone, and not with it all those behind it.
	kinds := []uint32{setupSubmitAll | setupSingleIssuer | setupDeferTaskrun, setupSubmitAll | raw.IORING_SETUP_COOP_TASKRUN, 0}
	if o.Shared {
		kinds = kinds[1:]
	}
	for _, extra := range kinds {
		p := &raw.IOURingParams{Flags: base | extra, CQEntries: uint32(o.Completions)}
		fd, err := raw.IOURingSetup(uint(o.Entries), p)
		if err == nil {
			unix.CloseOnExec(fd)
			r.fd, r.deferred = fd, extra&setupDeferTaskrun != 0
			if p.Features&(raw.IORING_FEAT_SINGLE_MMAP|raw.IORING_FEAT_NODROP) != raw.IORING_FEAT_SINGLE_MMAP|raw.IORING_FEAT_NODROP || p.Features&featExtArg == 0 {
				r.Close()
				return nil, &RefusedError{unix.ENOSYS, "the kernel's io_uring is older than linux 5.11", "update the kernel, or set ioEngine=mmap"}
			}
			return p, nil
		}
		if errnoOf(err) != unix.EINVAL {
			return nil, refused(errnoOf(err))
		}
	}
	return nil, refused(unix.EINVAL)
}

// layoutFits says that the kernel's structures are laid out as this package writes them.
var layoutFits = math.MaxInt == math.MaxInt64 && binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// allowed tries the other two system calls out: a filter may let io_uring_setup pass and refuse them.
func (r *Ring) allowed() error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 0, 0, 0, 0)
	if isRefusal(errno) {
		return refused(errno)
	}
	// There are no buffers to unregister, and the kernel says so, if it is asked.
	err := raw.IOURingRegister(r.fd, raw.IORING_UNREGISTER_BUFFERS, nil, 0)
	if err != nil && isRefusal(errnoOf(err)) {
		return refused(errnoOf(err))
	}
	return nil
}

func (r *Ring) mapQueues(p *raw.IOURingParams) error {
	sqBytes := int(p.SQOffset.Array) + 4*int(p.SQEntries)
	cqBytes := int(p.CQOffset.Cqes) + int(unsafe.Sizeof(Completion{}))*int(p.CQEntries)
	queues, err := r.mapAt(raw.IORING_OFF_SQ_RING, max(sqBytes, cqBytes))
	if err != nil {
		return err
	}
	sqes, err := r.mapAt(raw.IORING_OFF_SQES, int(p.SQEntries)*int(unsafe.Sizeof(Entry{})))
	if err != nil {
		return err
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&queues[off])) }
	r.kHead, r.kTail = at(p.SQOffset.Head), at(p.SQOffset.Tail)
	r.mask = *at(p.SQOffset.RingMask)
	r.entries = unsafe.Slice((*Entry)(unsafe.Pointer(&sqes[0])), p.SQEntries)
	// The array's indirection is not used: place i always means entry i.
	for i, a := 0, unsafe.Slice(at(p.SQOffset.Array), p.SQEntries); i < len(a); i++ {
		a[i] = uint32(i)
	}
	r.cHead, r.cTail = at(p.CQOffset.Head), at(p.CQOffset.Tail)
	r.cMask = *at(p.CQOffset.RingMask)
	r.completions = unsafe.Slice((*Completion)(unsafe.Pointer(&queues[p.CQOffset.Cqes])), p.CQEntries)
	r.tail, r.head = atomic.LoadUint32(r.kTail), atomic.LoadUint32(r.cHead)
	return nil
}

func (r *Ring) mapAt(off uint64, n int) ([]byte, error) {
	b, err := unix.Mmap(r.fd, int64(off), n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err == nil {
		r.maps = append(r.maps, b)
	}
	return b, err
}

// Enable makes the calling thread the owner of a ring made with Options.Disabled.
func (r *Ring) Enable() error {
	return r.register("enable io_uring", registerEnableRings, nil, 0)
}

// Close ends the ring. Operations in flight are cancelled by the kernel, but not at once, and reads and writes of files that run already go
// on to their end: memory that they use must outlive them, so the owner waits for its completions first. Every method of a closed ring
// answers ErrClosed or nothing.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	nowhere := make([]uint32, 1)
	r.kHead, r.kTail, r.cHead, r.cTail = &nowhere[0], &nowhere[0], &nowhere[0], &nowhere[0]
	r.tail, r.head = 0, 0
	r.entries, r.completions = nil, nil
	for _, m := range r.maps {
		unix.Munmap(m)
	}
	r.maps = nil
	err := unix.Close(r.fd)
	r.fd = -1
	r.wakeMu.Lock()
	defer r.wakeMu.Unlock()
	if r.park != nil {
		err = errors.Join(err, r.park.Close())
	} else if r.wakeFD >= 0 {
		unix.Close(r.wakeFD)
	}
	r.wakeFD = -1
	return err
}

// FD is the ring's descriptor, for poll and for diagnostics.
func (r *Ring) FD() int { return r.fd }

// Counts tells what the ring did.
func (r *Ring) Counts() Counts { return r.counts }

// Deferred tells that this is a single-issuer ring with deferred task work.
func (r *Ring) Deferred() bool { return r.deferred }

// Next is a cleared entry to fill before the next Submit or Wait, or nil when the queue is full: submit first.
func (r *Ring) Next() *Entry {
	if r.tail-atomic.LoadUint32(r.kHead) >= uint32(len(r.entries)) {
		return nil
	}
	e := &r.entries[r.tail&r.mask]
	r.tail++
	e.sqe.Reset()
	return e
}

// Room is how many entries Next has left.
func (r *Ring) Room() int { return len(r.entries) - int(r.tail-atomic.LoadUint32(r.kHead)) }

// Prepared is how many entries were filled and not submitted.
func (r *Ring) Prepared() int { return int(r.tail - atomic.LoadUint32(r.kHead)) }

// Submit hands what is prepared to the kernel, without waiting, and lets it post the completions that are due. An operation's own failure
// is in its completion; the error here is EBUSY or EAGAIN (take completions, then try again), or a bug.
func (r *Ring) Submit() error {
	return r.enter(r.publish(), 0, 0)
}

// Wait submits what is prepared and returns when at least one completion is there, when d has passed, after a Wake, and now and then for no
// reason at all (a signal). d below 0: no limit. It does not go to the kernel to wait when completions are there already.
func (r *Ring) Wait(d time.Duration) error {
	n := r.publish()
	if r.Ready() > 0 {
		if n == 0 {
			return nil
		}
		return r.enter(n, 0, 0)
	}
	if d == 0 {
		return r.enter(n, 0, 0)
	}
	if r.park != nil {
		return r.waitParked(n, d)
	}
	if err := r.armWake(); err != nil {
		return err
	}
	n = r.publish()
	if !r.state.CompareAndSwap(awake, asleep) {
		// Somebody called Wake since the last wait.
		r.state.Store(awake)
		return r.enter(n, 0, 0)
	}
	err := r.enter(n, 1, d)
	r.state.Store(awake)
	return err
}

// waitParked is Wait where nothing is there: it submits n entries, sleeps in Go's poller, and has the kernel post what is due.
func (r *Ring) waitParked(n uint32, d time.Duration) error {
	if n > 0 {
		if err := r.enter(n, 0, 0); err != nil || r.Ready() > 0 {
			return err
		}
	}
	if r.state.CompareAndSwap(awake, asleep) {
		var until time.Time
		if d > 0 {
			until = time.Now().Add(d)
		}
		err := r.park.SetReadDeadline(until)
		if err == nil {
			r.counts.Waits++
			_, err = r.park.Read(r.sink[:])
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			r.state.Store(awake)
			return err
		}
	}
	r.state.Store(awake)
	return r.enter(0, 0, 0)
}

// Wake ends the Wait that runs, or makes the next one not wait. Any goroutine, at any time; it costs an atomic exchange unless the owner
// sleeps.
func (r *Ring) Wake() {
	if r.state.Swap(woken) != asleep {
		return
	}
	r.wakeMu.Lock()
	defer r.wakeMu.Unlock()
	if r.wakeFD >= 0 {
		one := uint64(1)
		unix.RawSyscall(unix.SYS_WRITE, uintptr(r.wakeFD), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// armWake has a READ of the eventfd in flight before the ring sleeps.
func (r *Ring) armWake() error {
	if r.wakeArmed {
		return nil
	}
	e := r.Next()
	if e == nil {
		// The queue is full of prepared entries: let them go first.
		if err := r.enter(r.publish(), 0, 0); err != nil {
			return err
		}
		if e = r.Next(); e == nil {
			return unix.EBUSY
		}
	}
	e.Read(r.wakeFD, wakeSink[:], 0)
	e.SetData(wakeData)
	r.wakeArmed = true
	return nil
}

// Ready is how many completions can be taken without asking the kernel. The ring's own wake-up may count.
func (r *Ring) Ready() int { return int(atomic.LoadUint32(r.cTail) - r.head) }

// Posted tells, from any thread at any time before Close, that there are completions which were not taken.
func (r *Ring) Posted() bool { return atomic.LoadUint32(r.cTail) != atomic.LoadUint32(r.cHead) }

// Completed takes the oldest completion, if there is one.
func (r *Ring) Completed() (c Completion, ok bool) {
	for r.head != atomic.LoadUint32(r.cTail) {
		c = r.completions[r.head&r.cMask]
		r.head++
		atomic.StoreUint32(r.cHead, r.head)
		if c.Data != wakeData {
			r.counts.Completed++
			return c, true
		}
		r.wakeArmed = false
	}
	return Completion{}, false
}

func (r *Ring) publish() (n uint32) {
	atomic.StoreUint32(r.kTail, r.tail)
	return r.tail - atomic.LoadUint32(r.kHead)
}

// kernelTimespec is struct __kernel_timespec.
type kernelTimespec struct{ sec, nsec int64 }

// waitArg is struct io_uring_getevents_arg.
type waitArg struct {
	sigmask   uint64
	sigmaskSz uint32
	minWait   uint32
	ts        uint64
}

// enter submits n entries and waits for minimum completions, d at most (0 or less: no limit). A signal, and Go sends itself many, only ends
// the wait early; so does the time. The kernel may take fewer than n: then it has not waited, and is called again for the rest.
func (r *Ring) enter(n, minimum uint32, d time.Duration) error {
	if r.fd < 0 {
		return ErrClosed
	}
	for {
		taken, errno := r.call(n, minimum, d)
		switch errno {
		case 0:
		case unix.EINTR, unix.ETIME:
			return nil
		case unix.EEXIST:
			return errOtherThread
		case unix.EBADFD:
			return errNotEnabled
		default:
			return errno
		}
		r.counts.Submitted += uint64(taken)
		if taken >= n {
			return nil
		}
		if taken == 0 {
			return unix.EAGAIN
		}
		n -= taken
	}
}

func (r *Ring) call(n, minimum uint32, d time.Duration) (taken uint32, errno unix.Errno) {
	var got uintptr
	r.counts.Enters++
	switch {
	case minimum == 0 && r.raw:
		got, _, errno = unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, enterGetEvents, 0, 0)
	case minimum == 0:
		got, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, enterGetEvents, 0, 0)
	case d <= 0:
		r.counts.Waits++
		got, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), uintptr(minimum), enterGetEvents, 0, 0)
	default:
		r.counts.Waits++
		r.limit = kernelTimespec{int64(d / time.Second), int64(d % time.Second)}
		r.limitArg.ts = uint64(uintptr(unsafe.Pointer(&r.limit)))
		got, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), uintptr(minimum), enterGetEvents|enterExtArg,
			uintptr(unsafe.Pointer(&r.limitArg)), unsafe.Sizeof(r.limitArg))
	}
	return uint32(got), errno
}

func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// register is io_uring_register; doing names it in the error.
func (r *Ring) register(doing string, opcode uint8, arg unsafe.Pointer, n int) error {
	if r.fd < 0 {
		return fmt.Errorf("%s: %w", doing, ErrClosed)
	}
	err := raw.IOURingRegister(r.fd, opcode, arg, uint32(n))
	if err == nil {
		return nil
	}
	errno := errnoOf(err)
	if errno == unix.EEXIST && opcode != registerBufRing {
		return fmt.Errorf("%s: %w", doing, errOtherThread)
	}
	return fmt.Errorf("%s: %w", doing, errno)
}
