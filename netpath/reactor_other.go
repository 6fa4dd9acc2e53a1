//go:build !linux

package netpath

import (
	"errors"
	"net"
	"time"
)

// What reactor_linux.go and sendfile_linux.go supply, where there is no epoll: every
// connection is a stream and every reactor parks.

const hasPoller = false

type poller struct{}

type ring struct{ inFlight int }

var errNoRing = errors.New("io_uring is linux's")

func ringUsable() error { return errNoRing }

func (r *Reactor) enableRing()           { panic("BUG: ring without io_uring") }
func (r *Reactor) waitRing() (int, bool) { panic("BUG: ring without io_uring") }
func (r *Reactor) queueSend(*Conn) bool  { panic("BUG: ring without io_uring") }

// Watch is linux's.
func (r *Reactor) Watch(int) error { return errNoWatch }

func (r *Reactor) openPoller() error         { return nil }
func (r *Reactor) closePoller()              {}
func (r *Reactor) closeListeners()           {}
func (r *Reactor) resumeListeners()          {}
func (r *Reactor) pin()                      {}
func (r *Reactor) noSlack()                  {}
func (r *Reactor) peek() int                 { return 0 }
func (r *Reactor) sleep(d time.Duration) int { r.park.sleep(d); return 0 }
func (r *Reactor) interrupt()                { r.park.interrupt() }
func (r *Reactor) handleEvents(int)          { panic("BUG: event without a poller") }
func (r *Reactor) register(*Conn) error      { panic("BUG: native connection without a poller") }
func (r *Reactor) unregister(*Conn) error    { panic("BUG: native connection without a poller") }
func (r *Reactor) closeFD(*Conn)             { panic("BUG: native connection without a poller") }
func (r *Reactor) setInterest(*Conn)         { panic("BUG: native connection without a poller") }
func (r *Reactor) part(*Conn)                { panic("BUG: native connection without a poller") }
func (r *Reactor) flushSocket(*Conn)         { panic("BUG: native connection without a poller") }
func (r *Reactor) detach(*Conn) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
func closeSocket(int) {}

func (r *Reactor) coldArrived(*Conn, *segment, []byte) {
	panic("BUG: native connection without a poller")
}
func resident(int, int64, int) bool { return false }

func (s *Server) addListener(net.Listener) error { return errors.ErrUnsupported }
