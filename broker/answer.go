package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// request is one request on a lane: what a handler that may wait works with. Everything in it is the handler's.
type request struct {
	cmd  remoting.Command
	conn *netpath.Conn
	b    *Broker
}

// answer is what such a handler says.
type answer struct {
	code   int32
	remark string
	fields []field
	body   []byte
}

type field struct{ key, value string }

func number32(key string, n int32) field { return field{key, strconv.Itoa(int(n))} }

func succeeded() *answer { return &answer{} }

func withBody(v any) *answer { return &answer{body: remoting.EncodeBody(v)} }

// bounded is withBody for tables that may grow without end: what is longer than the frames that clients take is refused.
func (r *request) bounded(v any) *answer { return r.boundedBody(remoting.EncodeBody(v)) }

func (r *request) boundedBody(body []byte) *answer {
	if most := r.b.cfg.Load().FrameMaxLength; len(body) > most-maxAnswerHead {
		return refused(remoting.RespSystemError, "the answer would have %d bytes, more than frameMaxLength %d: %s", len(body), most, askForLess)
	}
	return &answer{body: body}
}

const (
	// maxAnswerHead is room for the header of such an answer.
	maxAnswerHead = 4 << 10
	askForLess    = "ask for one topic or group, or for one page"
)

// int32 is a decimal field of 32 bits, or fallback where it is absent.
func (r *request) int32(key string, fallback int32) (int32, error) {
	n, err := r.cmd.Int(key, int64(fallback))
	if err == nil && n != int64(int32(n)) {
		err = refuse(remoting.RespInvalidParameter, "%s is no 32-bit number", key)
	}
	return int32(n), err
}

// later runs work on a goroutine of its own, for requests that wait for other programs: for seconds, so that a few of them would fill
// a lane. The answer follows when work is done.
func (r *request) later(work func() *answer) *answer {
	b := r.b
	if b.calls.running.Add(1) > maxLater {
		b.calls.running.Add(-1)
		return refused(remoting.RespSystemBusy, "%d requests wait for clients and name servers already, try again later", maxLater)
	}
	b.spawn(func() {
		defer b.calls.running.Add(-1)
		b.answer(r.conn, &r.cmd, work())
	})
	return nil
}

// maxLater bounds the requests that wait for other programs.
const maxLater = 256

func refused(code int32, format string, args ...any) *answer {
	return &answer{code: code, remark: fmt.Sprintf(format, args...)}
}

// failed turns an error into an answer.
func failed(err error) *answer {
	code, remark := codeOf(err)
	return &answer{code: code, remark: remark}
}

// with adds a field of the response header.
func (a *answer) with(key string, value any) *answer {
	a.fields = append(a.fields, field{key, fmt.Sprint(value)})
	return a
}

// codeOf is the one place where errors become response codes.
func codeOf(err error) (code int32, remark string) {
	var refusal *tableError
	var tooLarge *commitlog.TooLargeError
	var failure *commitlog.FailedError
	switch {
	case errors.As(err, &refusal):
		return refusal.Code, refusal.Remark
	case errors.As(err, &tooLarge), errors.Is(err, store.ErrBatch):
		return remoting.RespMessageIllegal, err.Error()
	case errors.As(err, &failure), errors.Is(err, commitlog.ErrDiskFull), errors.Is(err, commitlog.ErrClosed), errors.Is(err, store.ErrDiskUsed):
		return remoting.RespServiceNotAvailable, "service not available now: " + err.Error()
	case errors.Is(err, errFlushTimeout):
		return remoting.RespFlushDiskTimeout, err.Error()
	case errors.Is(err, commitlog.ErrNotReady), errors.Is(err, context.DeadlineExceeded):
		return remoting.RespSystemBusy, "[PC_SYNCHRONIZED]broker busy: " + err.Error()
	case errors.Is(err, commitlog.ErrGone):
		return remoting.RespSystemError, err.Error()
	}
	return remoting.RespSystemError, err.Error()
}

// answer sends a to whoever asked; a nil answer means that there is nothing to say (yet).
func (b *Broker) answer(c *netpath.Conn, cmd *remoting.Command, a *answer) {
	if a == nil || cmd.IsOneway() {
		return
	}
	w := remoting.Respond(nil, cmd, a.code, a.remark)
	for _, f := range a.fields {
		w.Text(f.key, f.value)
	}
	c.Send(w.Finish(a.body))
}

// sendFrame sends a finished frame unless the request wants no answer.
func (b *Broker) sendFrame(c *netpath.Conn, cmd *remoting.Command, frame []byte) {
	if !cmd.IsOneway() {
		c.Send(frame)
	}
}

func unsupportedRemark(code int32) string {
	return fmt.Sprintf(" request type %d not supported", code)
}
