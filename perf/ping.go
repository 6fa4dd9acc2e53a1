package perf

import (
	"context"
	"fmt"
	"net"
)

// Ping creates Config.Topic, sends one message to it and waits until it is acknowledged: what a client does first that has waited
// for a broker to start.
func Ping(ctx context.Context, config Config) error {
	c := &config
	c.Topics, c.Queues, c.Batch = 1, 1, 1
	if err := c.settle(); err != nil {
		return err
	}
	w, err := newWire(c)
	if err != nil {
		return err
	}
	defer w.close()
	found, err := w.find(ctx, c)
	if err != nil {
		return err
	}
	q := found.queues[0]
	t, err := w.template(c, q, filler(c.Size))
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", q.addr)
	if err != nil {
		return fmt.Errorf("connect to broker: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	sending := w.sending(c, 0)
	wall := newClock().wall
	o := outgoing{opaque: firstOpaque, born: new([13]byte), lane: &lane{}, stamp: stamp{time: wall}}
	putDigits(o.born[:], uint64(wall/1e6))
	putHex(o.uniq[:], uint64(wall))
	if _, err := conn.Write(t.append(sending.hello(nil), &o)); err != nil {
		return err
	}
	return awaitAnswer(conn, sending)
}

// awaitAnswer reads until a request is answered.
func awaitAnswer(conn net.Conn, sending sendWire) error {
	var b []byte
	var a sendAnswer
	for {
		size, err := sending.next(b, &a)
		if err != nil {
			return err
		}
		b = b[size:]
		switch {
		case size == 0:
			part := make([]byte, 64<<10)
			n, err := conn.Read(part)
			if err != nil {
				return err
			}
			b = append(b, part[:n]...)
		case a.outcome == outcomeStored:
			return nil
		case a.outcome != outcomeNone:
			return fmt.Errorf("%s answered code %d: %s", conn.RemoteAddr(), a.code, a.remark)
		}
	}
}
