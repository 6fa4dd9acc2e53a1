package client

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ringmq/ringmq/remoting"
)

// Request is one request. Fields are written in the order of their names, then Header adds what it likes.
type Request struct {
	Code   int32
	Fields map[string]string
	Header func(w *remoting.Writer)
	Body   []byte
}

// name is the request in words, for errors.
func (r *Request) name() string {
	if n := remoting.RequestName(r.Code); n != "" {
		return n
	}
	return fmt.Sprintf("request %d", r.Code)
}

func (r *Request) appendTo(dst []byte, serialize byte, opaque, flag int32) []byte {
	w := remoting.Request(dst, serialize, r.Code, opaque, flag)
	if len(r.Fields) > 0 {
		for _, key := range slices.Sorted(maps.Keys(r.Fields)) {
			w.Text(key, r.Fields[key])
		}
	}
	if r.Header != nil {
		r.Header(&w)
	}
	return w.Finish(r.Body)
}

// Response is an answer, copied out of its frame.
type Response struct {
	Code     int32
	Version  int32
	Language byte
	Remark   string
	Fields   map[string]string
	Body     []byte

	request string
}

func copyResponse(c *remoting.Command, request string) *Response {
	r := &Response{
		Code: c.Code, Version: c.Version, Language: c.Language, Remark: string(c.Remark),
		Body: append([]byte(nil), c.Body...), request: request,
	}
	if len(c.Fields) > 0 {
		r.Fields = make(map[string]string, len(c.Fields))
		for i := range c.Fields {
			r.Fields[string(c.Fields[i].Key)] = string(c.Fields[i].Value)
		}
	}
	return r
}

// Int is a decimal field of the answer.
func (r *Response) Int(key string) (int64, error) {
	n, ok := remoting.ParseInt([]byte(r.Fields[key]))
	if !ok {
		return 0, fmt.Errorf("answer to %s: field %s is %q, not a number", r.request, key, r.Fields[key])
	}
	return n, nil
}

// Err is nil for code 0, else a *CodeError.
func (r *Response) Err() error {
	if r.Code == remoting.RespSuccess {
		return nil
	}
	return &CodeError{Request: r.request, Code: r.Code, Remark: r.Remark}
}

// CodeError is an answer other than success.
type CodeError struct {
	Request string
	Code    int32
	Remark  string
}

func (e *CodeError) Error() string {
	return fmt.Sprintf("%s answered code %d: %s", e.Request, e.Code, e.Remark)
}
