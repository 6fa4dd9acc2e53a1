package client

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

// serve runs a server that gives every frame to handle, which returns what to write back.
func serve(t *testing.T, handle func(c *remoting.Command) []byte) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					command, err := readCommand(conn)
					if err != nil {
						return
					}
					answer := handle(command)
					if answer == nil {
						continue
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func readCommand(r io.Reader) (*remoting.Command, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	c := new(remoting.Command)
	return c, c.Decode(frame)
}

func echo(c *remoting.Command) []byte {
	w := remoting.Respond(nil, c, remoting.RespSuccess, "")
	w.Text("topic", c.String("topic"))
	return w.Finish(c.Body)
}

func dial(t *testing.T, addr string, o Options) *Conn {
	t.Helper()
	c, err := Dial(context.Background(), addr, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestInvokeCopiesTheAnswer(t *testing.T) {
	addr := serve(t, echo)
	for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
		c := dial(t, addr, Options{Serialize: serialize})
		body := []byte(strings.Repeat("x", 100_000))
		first, err := c.Call(t.Context(), Request{Code: 105, Fields: map[string]string{"topic": "A"}, Body: body})
		require.NoError(t, err)
		_, err = c.Call(t.Context(), Request{Code: 105, Header: func(w *remoting.Writer) { w.Text("topic", "B") }})
		require.NoError(t, err)
		require.Equal(t, "A", first.Fields["topic"])
		require.Equal(t, body, first.Body)
	}
}

func TestAnswersInAnyOrder(t *testing.T) {
	var held [][]byte
	addr := serve(t, func(c *remoting.Command) []byte {
		if held = append(held, echo(c)); len(held) < 10 {
			return nil
		}
		var all []byte
		for i := len(held) - 1; i >= 0; i-- {
			all = append(all, held[i]...)
		}
		return all
	})
	c := dial(t, addr, Options{})
	var wait sync.WaitGroup
	for i := range 10 {
		wait.Go(func() {
			want := string(rune('a' + i))
			r, err := c.Call(t.Context(), Request{Code: 10, Fields: map[string]string{"topic": want}})
			require.NoError(t, err)
			require.Equal(t, want, r.Fields["topic"])
		})
	}
	wait.Wait()
}

func TestCodeError(t *testing.T) {
	addr := serve(t, func(c *remoting.Command) []byte {
		w := remoting.Respond(nil, c, remoting.RespTopicNotExist, "no such topic")
		return w.Finish(nil)
	})
	_, err := dial(t, addr, Options{}).Call(t.Context(), Request{Code: remoting.ReqGetRouteinfoByTopic})
	var code *CodeError
	require.ErrorAs(t, err, &code)
	require.Equal(t, remoting.RespTopicNotExist, code.Code)
	require.ErrorContains(t, err, "no such topic")
}

func TestAnswerAfterTheCallerGaveUp(t *testing.T) {
	release := make(chan struct{})
	addr := serve(t, func(c *remoting.Command) []byte {
		if c.Code == 1 {
			<-release
		}
		return echo(c)
	})
	c := dial(t, addr, Options{MaxInFlight: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := c.Invoke(ctx, Request{Code: 1, Fields: map[string]string{"topic": "late"}})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	close(release)
	// The slot is used again at once; the late answer must not be taken for this one's.
	r, err := c.Call(t.Context(), Request{Code: 2, Fields: map[string]string{"topic": "next"}})
	require.NoError(t, err)
	require.Equal(t, "next", r.Fields["topic"])
}

func TestTableFull(t *testing.T) {
	addr := serve(t, func(*remoting.Command) []byte { return nil })
	c := dial(t, addr, Options{MaxInFlight: 2})
	ended := make(chan error, 2)
	done := func(_ *remoting.Command, err error) { ended <- err }
	require.NoError(t, c.Go(Request{Code: 1}, done))
	require.NoError(t, c.Go(Request{Code: 1}, done))
	require.ErrorIs(t, c.Go(Request{Code: 1}, done), ErrBusy)
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-ended, ErrClosed)
	require.ErrorIs(t, <-ended, ErrClosed)
	require.ErrorIs(t, c.Go(Request{Code: 1}, done), ErrClosed)
	<-c.Done()
}

func TestServerGoesAway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, _ = readCommand(conn)
			_ = conn.Close()
		}
	}()
	c := dial(t, listener.Addr().String(), Options{})
	_, err = c.Invoke(t.Context(), Request{Code: 1})
	require.ErrorIs(t, err, io.EOF)
	<-c.Done()
	require.ErrorIs(t, c.Err(), io.EOF)
}

func TestServerLiesAboutLengths(t *testing.T) {
	for name, frame := range map[string][]byte{
		"huge":   {0x7f, 0xff, 0xff, 0xff},
		"short":  {0, 0, 0, 3, 1, 2, 3},
		"header": {0, 0, 0, 8, 0, 0, 0, 99, 'x', 'x', 'x', 'x'},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serve(t, func(*remoting.Command) []byte { return frame })
			c := dial(t, addr, Options{})
			_, err := c.Invoke(t.Context(), Request{Code: 1})
			require.Error(t, err)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			<-c.Done()
		})
	}
}

func TestServerRequests(t *testing.T) {
	answers := make(chan *remoting.Command, 2)
	addr := serve(t, func(c *remoting.Command) []byte {
		if c.IsResponse() {
			answers <- c
			return nil
		}
		w := remoting.Request(nil, remoting.SerializeJSON, remoting.ReqGetConsumerRunningInfo, c.Opaque, 0)
		ask := w.Finish(nil)
		return append(ask, echo(c)...)
	})
	var asked atomic.Int32
	c := dial(t, addr, Options{Handler: func(c *Conn, request *remoting.Command) {
		asked.Store(request.Code)
		_ = c.Reply(request, remoting.RespSuccess, "", nil, []byte("fine"))
	}})
	_, err := c.Call(t.Context(), Request{Code: 34})
	require.NoError(t, err)
	require.Equal(t, "fine", string((<-answers).Body))
	require.Equal(t, remoting.ReqGetConsumerRunningInfo, asked.Load())

	silent := dial(t, addr, Options{})
	_, err = silent.Call(t.Context(), Request{Code: 34})
	require.NoError(t, err)
	require.Equal(t, remoting.RespRequestCodeNotSupported, (<-answers).Code)
}

func TestOnewayTakesNoSlot(t *testing.T) {
	var seen atomic.Int32
	addr := serve(t, func(c *remoting.Command) []byte {
		if c.IsOneway() {
			seen.Add(1)
			return nil
		}
		return echo(c)
	})
	c := dial(t, addr, Options{MaxInFlight: 1})
	for range 5 {
		require.NoError(t, c.Oneway(Request{Code: 15}))
	}
	_, err := c.Call(t.Context(), Request{Code: 1})
	require.NoError(t, err)
	require.Equal(t, int32(5), seen.Load())
}

func TestFrameTooLargeIsNotSent(t *testing.T) {
	c := dial(t, serve(t, echo), Options{MaxFrame: 1024})
	_, err := c.Invoke(t.Context(), Request{Code: 1, Body: make([]byte, 2000)})
	require.ErrorContains(t, err, "larger than 1024")
	_, err = c.Invoke(t.Context(), Request{Code: 1})
	require.NoError(t, err, "the connection goes on")
}

func TestDialRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())
	_, err = Dial(t.Context(), addr, Options{})
	require.ErrorContains(t, err, addr)
	var op *net.OpError
	require.True(t, errors.As(err, &op))
}

func TestAnswerTakesNoMemory(t *testing.T) {
	var table inflight
	table.init(64)
	done := func(*remoting.Command, error) {}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		opaque, err := table.add(done)
		if err != nil || table.take(opaque) == nil || table.take(opaque) != nil {
			panic("slot lost")
		}
	}))
}
