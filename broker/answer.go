package broker

import (
	"context"
	"errors"
	"fmt"

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

func succeeded() *answer { return &answer{} }

func withBody(v any) *answer { return &answer{body: remoting.EncodeBody(v)} }

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
