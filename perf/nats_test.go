package perf

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNATSMessages(t *testing.T) {
	for name, tc := range map[string]struct {
		text    string
		size    int
		kind    natsKind
		subject string
		reply   string
		payload string
		status  int
	}{
		"ping":           {"PING\r\n", 6, natsPing, "", "", "", 0},
		"info":           {"INFO {\"a\":1}\r\nPING\r\n", 14, natsOther, "", "", "", 0},
		"message":        {"MSG a.b 1 5\r\nhello\r\nrest", 20, natsMsg, "a.b", "", "hello", 0},
		"with reply":     {"MSG a 1 r.s 2\r\nhi\r\n", 19, natsMsg, "a", "r.s", "hi", 0},
		"empty":          {"MSG a 1 0\r\n\r\n", 13, natsMsg, "a", "", "", 0},
		"status":         {"HMSG in.7 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", 37, natsMsg, "in.7", "", "", 503},
		"status, text":   {"HMSG in.7 1 28 28\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n", 49, natsMsg, "in.7", "", "", 404},
		"header":         {"HMSG a 1 r 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\n", 40, natsMsg, "a", "r", "hi", 0},
		"cut in line":    {"MSG a 1 ", 0, 0, "", "", "", 0},
		"cut in payload": {"MSG a 1 5\r\nhel", 0, natsMsg, "a", "", "", 0},
		"cut at the end": {"MSG a 1 5\r\nhello\r", 0, natsMsg, "a", "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var m natsMessage
			size, err := m.read([]byte(tc.text))
			require.NoError(t, err)
			require.Equal(t, tc.size, size)
			if size > 0 {
				require.Equal(t, tc.kind, m.kind)
			}
			require.Equal(t, tc.payload, string(m.payload))
			require.Equal(t, tc.status, m.status)
			if tc.subject != "" {
				require.Equal(t, tc.subject, string(m.subject))
				require.Equal(t, tc.reply, string(m.reply))
			}
		})
	}
	for name, text := range map[string]string{
		"error": "-ERR 'Authorization Violation'\r\n", "no size": "MSG a 1 x\r\n", "too large": "MSG a 1 999999999\r\n", "too few": "MSG a\r\n",
		"too many": "MSG a 1 b 2 3 4\r\n", "negative": "MSG a 1 -5\r\n", "header beyond": "HMSG a 1 9 5\r\n", "endless": strings.Repeat("x", natsMaxLine+1),
	} {
		t.Run(name, func(t *testing.T) {
			size, err := new(natsMessage).read([]byte(text))
			require.Error(t, err)
			require.Zero(t, size)
		})
	}
}

func TestNATSNumbers(t *testing.T) {
	require.Equal(t, int64(77), streamSequence([]byte("$JS.ACK.stream.consumer.1.77.3.1700000000.0")))
	require.Equal(t, int64(77), streamSequence([]byte("$JS.ACK.domain.account.stream.consumer.1.77.3.1700000000.0.token")))
	for _, other := range []string{"", "a.b", "$JS.ACK.a.b", "$JS.ACK.stream.consumer.1.x.3.17.0", "$JS.ACK........"} {
		require.Zero(t, streamSequence([]byte(other)), other)
	}
	require.Equal(t, int64(12), numberBehind([]byte(`{"stream":"s","seq":12}`), natsSequence))
	require.Zero(t, numberBehind([]byte(`{"stream":"s"}`), natsSequence))
	_, ok := lastNumber([]byte("_INBOX.a.b"))
	require.False(t, ok)
	_, ok = lastNumber([]byte("a.99999999999999999999"))
	require.False(t, ok)
}

func TestNATSAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		text    string
		outcome outcome
		code    int32
		offset  int64
	}{
		"stored":     {"MSG _INBOX.a.00000.1000000007 1 25\r\n{\"stream\":\"s\", \"seq\":12}x\r\n", outcomeStored, 0, 11},
		"refused":    {"MSG _INBOX.a.00000.1000000007 1 62\r\n{\"error\":{\"code\":503,\"err_code\":10077,\"description\":\"full\"}}  \r\n", outcomeRefused, 10077, 0},
		"nobody":     {"HMSG _INBOX.a.00000.1000000007 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", outcomeRefused, 503, 0},
		"unreadable": {"MSG _INBOX.a.00000.1000000007 1 2\r\nhi\r\n", outcomeUnclear, 0, 0},
		"ping":       {"PING\r\n", outcomeNone, 0, 0},
		"stranger":   {"MSG somebody 1 2\r\nhi\r\n", outcomeNone, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var a sendAnswer
			size, err := new(natsSend).next([]byte(tc.text), &a)
			require.NoError(t, err)
			require.Equal(t, len(tc.text), size)
			require.Equal(t, tc.outcome, a.outcome)
			require.Equal(t, tc.code, a.code)
			if a.outcome == outcomeStored {
				require.Equal(t, uint32(1000000007), a.opaque)
				require.Equal(t, tc.offset, a.offset)
				require.True(t, a.placed)
			}
			require.Equal(t, name == "ping", a.reply != nil)
		})
	}
}

// fakeNATS stores messages in memory: one stream, consumers that give out everything.
type fakeNATS struct {
	t    *testing.T
	addr string
	mu   sync.Mutex
	// messages of the stream: subject and payload; sequence n is at n-1.
	messages  [][2]string
	consumers map[string]string // their filters
	waiting   []*natsPullRequest
	next      map[string]int // of a consumer
	streams   map[string]bool
}

type natsPullRequest struct {
	client          *natsClient
	inbox, consumer string
	left            int
}

type natsClient struct {
	conn  net.Conn
	mu    sync.Mutex
	inbox map[string]string // prefix of a subscription to its number
}

func newFakeNATS(t *testing.T) *fakeNATS {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	s := &fakeNATS{t: t, addr: listener.Addr().String(), consumers: map[string]string{}, next: map[string]int{}, streams: map[string]bool{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(&natsClient{conn: conn, inbox: map[string]string{}})
		}
	}()
	return s
}

func (s *fakeNATS) serve(c *natsClient) {
	defer c.conn.Close()
	_, _ = io.WriteString(c.conn, "INFO {}\r\nPING\r\n")
	r := bufio.NewReader(c.conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		switch f[0] {
		case "SUB":
			c.inbox[strings.TrimSuffix(f[1], "*")] = f[2]
		case "PUB":
			size, _ := strconv.Atoi(f[3])
			payload := make([]byte, size+2)
			if _, err := io.ReadFull(r, payload); err != nil {
				return
			}
			s.publish(c, f[1], f[2], string(payload[:size]))
		}
	}
}

// deliver sends a message to who has subscribed to inbox; subject is what it says about itself.
func (c *natsClient) deliver(inbox, subject, reply, payload string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sid := c.inbox[inbox[:strings.LastIndexByte(inbox, '.')+1]]
	_, _ = fmt.Fprintf(c.conn, "MSG %s %s %s%d\r\n%s\r\n", subject, sid, reply, len(payload), payload)
}

func (s *fakeNATS) publish(c *natsClient, subject, inbox, payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call, api := strings.CutPrefix(subject, natsAPI)
	part := strings.Split(call, ".")
	switch {
	case !api && !s.streams[strings.Split(subject, ".")[0]]:
	case !api:
		s.messages = append(s.messages, [2]string{subject, payload})
		c.deliver(inbox, inbox, "", fmt.Sprintf(`{"stream":"s","seq":%d}`, len(s.messages)))
		s.give()
	case strings.HasPrefix(call, "STREAM.CREATE."), strings.HasPrefix(call, "STREAM.INFO."):
		s.streams[part[2]] = true
		c.deliver(inbox, inbox, "", fmt.Sprintf(`{"state":{"first_seq":1,"last_seq":%d}}`, len(s.messages)))
	case strings.HasPrefix(call, "STREAM.MSG.GET."):
		var want struct {
			Last string `json:"last_by_subj"`
		}
		require.NoError(s.t, json.Unmarshal([]byte(payload), &want))
		for i := len(s.messages) - 1; i >= 0; i-- {
			if s.messages[i][0] == want.Last {
				c.deliver(inbox, inbox, "", fmt.Sprintf(`{"message":{"seq":%d}}`, i+1))
				return
			}
		}
		c.deliver(inbox, inbox, "", `{"error":{"code":404,"err_code":10037,"description":"no message found"}}`)
	case strings.HasPrefix(call, "CONSUMER.CREATE."):
		s.consumers[part[3]] = strings.Join(part[4:], ".")
		c.deliver(inbox, inbox, "", `{"name":"x"}`)
	case strings.HasPrefix(call, "CONSUMER.MSG.NEXT."):
		var want struct{ Batch int }
		require.NoError(s.t, json.Unmarshal([]byte(payload), &want))
		s.waiting = append(s.waiting, &natsPullRequest{c, inbox, part[4], want.Batch})
		s.give()
	}
}

// give answers the requests that wait, with what has come.
func (s *fakeNATS) give() {
	for _, w := range s.waiting {
		for ; w.left > 0 && s.next[w.consumer] < len(s.messages); s.next[w.consumer]++ {
			n := s.next[w.consumer]
			if filter := s.consumers[w.consumer]; filter == "" || filter == s.messages[n][0] {
				w.client.deliver(w.inbox, s.messages[n][0], fmt.Sprintf("$JS.ACK.s.c.1.%d.1.1.0 ", n+1), s.messages[n][1])
				w.left--
			}
		}
	}
}

func TestEndToEndOverNATS(t *testing.T) {
	for name, queues := range map[string]int{"one subject": 1, "four subjects": 4} {
		t.Run(name, func(t *testing.T) {
			s := newFakeNATS(t)
			c := Config{Protocol: "nats", Brokers: []string{s.addr}, Count: 300, Size: 64, Queues: queues, Conns: 2, Depth: 4, PullBatch: 7, Idle: time.Second}
			report, err := EndToEnd(t.Context(), c)
			require.NoError(t, err)
			require.NoError(t, report.Err(), report.Verified.Problems)
			require.Equal(t, int64(300), report.Verified.Received)
			require.Equal(t, int64(300), report.Latency("after the ack").Count)
			c.Passes, c.Count = 2, 0
			report, err = Drain(t.Context(), c)
			require.NoError(t, err)
			require.NoError(t, report.Err(), report.Verified.Problems)
			require.Equal(t, int64(600), report.Verified.Received, "twice over")
			// What is lost is found: the offsets that were answered are not there any more.
			s.mu.Lock()
			s.messages[299][1] = s.messages[298][1]
			s.mu.Unlock()
			c.Passes = 1
			report, err = Drain(t.Context(), c)
			require.NoError(t, err)
			require.False(t, report.Verified.OK)
		})
	}
}

func TestNATSRefusesWhatItHasNot(t *testing.T) {
	s := newFakeNATS(t)
	for _, c := range []Config{{Batch: 2}, {Tag: "a"}, {Keys: "k"}} {
		c.Protocol, c.Brokers = "nats", []string{s.addr}
		_, err := Produce(t.Context(), c)
		require.ErrorContains(t, err, "no batches")
	}
	require.NoError(t, Ping(t.Context(), Config{Protocol: "nats", Brokers: []string{s.addr}}))
	_, err := Produce(t.Context(), Config{Protocol: "amqp", Brokers: []string{s.addr}})
	require.ErrorContains(t, err, "rocketmq, nats, kafka")
}
