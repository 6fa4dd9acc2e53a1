package netpath

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func dialTLS(t testing.TB, s *Server, first []byte) (*testClient, error) {
	t.Helper()
	raw := dial(t, s)
	if len(first) > 0 {
		raw.send(first)
	}
	conn := tls.Client(raw.Conn, &tls.Config{InsecureSkipVerify: true})
	err := conn.Handshake()
	return newClient(t, conn), err
}

func TestTLSModes(t *testing.T) {
	config := selfSigned(t)
	eachTransport(t, func(t *testing.T, o Options) {
		for _, tt := range []struct {
			mode       TLSMode
			plain, tls bool
			reason     string
		}{
			{TLSDisabled, true, false, "tlsRefused"},
			{TLSPermissive, true, true, ""},
			{TLSEnforcing, false, true, "plainRefused"},
		} {
			o := o
			o.TLSMode, o.TLSConfig = tt.mode, config
			s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
				if c.Secure != bytes.Contains(frame, []byte("secure")) {
					t.Errorf("Secure is %v for %q", c.Secure, frame)
				}
				echo(c, frame)
			}})
			plain := dial(t, s)
			plain.send(jsonFrame("open"))
			if tt.plain {
				plain.expect(jsonFrame("open"))
			} else {
				plain.expectClosed()
			}
			client, err := dialTLS(t, s, nil)
			if !tt.tls {
				if err == nil {
					t.Errorf("mode %d: handshake succeeded", tt.mode)
				}
			} else if err != nil {
				t.Errorf("mode %d: %v", tt.mode, err)
			} else {
				big := jsonFrame("secure" + strings.Repeat("x", 1<<20))
				go client.Write(append(bytes.Repeat(jsonFrame("secure"), 1000), big...))
				client.expect(bytes.Repeat(jsonFrame("secure"), 1000))
				client.expect(big)
			}
			if tt.reason != "" {
				eventually(t, "refusal is counted", func() bool { return s.Stats().Refused[tt.reason] == 1 })
			}
		}
	})
}

// A client that opens TLS and then says nothing has the deadline of a first frame.
func TestHandshakeHasADeadline(t *testing.T) {
	config := selfSigned(t)
	eachTransport(t, func(t *testing.T, o Options) {
		o.TLSMode, o.TLSConfig = TLSPermissive, config
		o.Limits.FirstFrameTimeout, o.Tick = 60*time.Millisecond, 5*time.Millisecond
		s := serve(t, o, &testHandler{close: func(*Conn) { t.Error("OnClose of a connection that was not established") }})
		c := dial(t, s)
		c.send([]byte{tlsHandshakeByte, 3, 1})
		c.expectClosed()
		eventually(t, "it is counted", func() bool { return s.Stats().Refused["firstFrameTimeout"] == 1 })
	})
}

func TestProxyProtocol(t *testing.T) {
	config := selfSigned(t)
	src, dst := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.1:10911")
	v1 := []byte("PROXY TCP4 192.0.2.7 198.51.100.1 4711 10911\r\n")
	v2 := proxyV2TCP4(src, dst, nil)
	long := proxyV2TCP4(src, dst, make([]byte, 4096-12))
	eachTransport(t, func(t *testing.T, o Options) {
		o.ProxyProtocol, o.TLSMode, o.TLSConfig = true, TLSPermissive, config
		type ends struct{ remote, local netip.AddrPort }
		seen := make(chan ends, 100)
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			seen <- ends{c.Remote, c.Local}
			echo(c, frame)
		}})
		for name, tt := range map[string]struct {
			header []byte
			piece  int
			named  bool
		}{
			"none":               {nil, 1000, false},
			"v1":                 {v1, 1000, true},
			"v1, byte by byte":   {v1, 1, true},
			"v2":                 {v2, 1000, true},
			"v2, byte by byte":   {v2, 1, true},
			"v2 with 4 KiB TLVs": {long, 1 << 20, true},
		} {
			c := dial(t, s)
			for rest := append(bytes.Clone(tt.header), jsonFrame(name)...); len(rest) > 0; {
				n := min(len(rest), tt.piece)
				c.send(rest[:n])
				rest = rest[n:]
			}
			c.expect(jsonFrame(name))
			if got := receive(t, seen); tt.named && got != (ends{src, dst}) || !tt.named && got.remote.String() != c.LocalAddr().String() {
				t.Errorf("%s: %v", name, got)
			}
		}
		c, err := dialTLS(t, s, v2)
		if err != nil {
			t.Fatal(err)
		}
		c.send(jsonFrame("tls"))
		c.expect(jsonFrame("tls"))
		if got := receive(t, seen); got != (ends{src, dst}) {
			t.Errorf("TLS: %v", got)
		}
		bad := dial(t, s)
		bad.send([]byte("PROXY TCP4 nonsense\r\n\x00"))
		bad.expectClosed()
		eventually(t, "it is counted", func() bool { return s.Stats().Refused["badProxyHeader"] == 1 })
	})
}

func TestAddressFromProxyCounts(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.ProxyProtocol = true
		o.Limits.MaxConnsPerAddr = 2
		s := serve(t, o, &testHandler{frame: echo})
		open := func(src string) *testClient {
			c := dial(t, s)
			c.send([]byte("PROXY TCP4 " + src + " 198.51.100.1 1 2\r\n" + string(jsonFrame("x"))))
			return c
		}
		for _, src := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"} {
			open(src).expect(jsonFrame("x"))
		}
		open("192.0.2.1").expectClosed()
		eventually(t, "it is counted", func() bool { return s.Stats().Refused["maxConnsPerAddr"] == 1 })
	})
}

// countedRelease counts how often it was released.
type countedRelease struct{ n atomic.Int64 }

func (c *countedRelease) Release() { c.n.Add(1) }

// testFile returns an open file of n bytes that differ from place to place.
func testFile(t testing.TB, n int) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(data[i:], uint64(i)*0x9E3779B97F4A7C15)
	}
	name := filepath.Join(t.TempDir(), "segment")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, data
}

func TestSendFile(t *testing.T) {
	file, data := testFile(t, 12<<20)
	config := selfSigned(t)
	test := func(t *testing.T, o Options, connect func(s *Server) *testClient) {
		o.TLSMode, o.TLSConfig = TLSPermissive, config
		var rel countedRelease
		fd := int(file.Fd())
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			echo(c, frame)
			c.SendFile(fd, 0, 100, &rel)
			c.SendFile(fd, 4096, 4096, &rel)
			echo(c, frame)
			c.SendFile(fd, 7, len(data)-7, &rel)
			echo(c, frame)
			c.SendFile(fd, 0, 0, &rel)
		}})
		c := connect(s)
		if raw, ok := c.Conn.(*net.TCPConn); ok {
			raw.SetReadBuffer(64 << 10) // so that the rest has to wait for EPOLLOUT
		}
		head := jsonFrame("head")
		for range 2 {
			c.send(head)
			c.expect(head)
			c.expect(data[:100])
			c.expect(data[4096:8192])
			c.expect(head)
			c.expect(data[7:])
			c.expect(head)
		}
		eventually(t, "each range is released", func() bool { return rel.n.Load() == 8 })
	}
	eachTransport(t, func(t *testing.T, o Options) {
		test(t, o, func(s *Server) *testClient { return dial(t, s) })
	})
	t.Run("TLS", func(t *testing.T) {
		test(t, Options{}, func(s *Server) *testClient {
			c, err := dialTLS(t, s, nil)
			if err != nil {
				t.Fatal(err)
			}
			return c
		})
	})
}

func TestSendFileIsReleasedOnceWhenTheClientLeavesMidway(t *testing.T) {
	file, data := testFile(t, 8<<20)
	eachTransport(t, func(t *testing.T, o Options) {
		var rel countedRelease
		fd := int(file.Fd())
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			for range 3 {
				c.SendFile(fd, 0, len(data), &rel)
			}
		}})
		c := dial(t, s)
		c.send(jsonFrame("x"))
		c.expect(data[:1<<20])
		c.Close()
		eventually(t, "the connection is gone", func() bool { return s.Stats().Conns == 0 })
		eventually(t, "all ranges are released", func() bool { return rel.n.Load() >= 3 })
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if n := rel.n.Load(); n != 3 {
			t.Errorf("%d releases of 3 ranges", n)
		}
	})
}

func TestFileThatIsTooShortClosesTheConnection(t *testing.T) {
	file, data := testFile(t, 8192)
	eachTransport(t, func(t *testing.T, o Options) {
		var rel countedRelease
		fd := int(file.Fd())
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			c.SendFile(fd, 0, len(data)+1, &rel)
		}})
		c := dial(t, s)
		c.send(jsonFrame("x"))
		got, err := io.ReadAll(c.r)
		if err != nil || !bytes.HasPrefix(data, got) {
			t.Errorf("%d bytes, error %v", len(got), err)
		}
		eventually(t, "released", func() bool { return rel.n.Load() == 1 && s.Stats().Conns == 0 })
	})
}

// Pipelined requests whose answers together are far above MaxBacklog are all answered: the
// connection is paused, not closed.
func TestPipelinedPullsArePaced(t *testing.T) {
	const requests, size = 400, 256 << 10 // 100 MiB of answers
	file, data := testFile(t, size)
	eachTransport(t, func(t *testing.T, o Options) {
		o.Limits.MaxBacklog = 2 << 20
		var rel countedRelease
		fd := int(file.Fd())
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) { c.SendFile(fd, 0, size, &rel) }})
		c := dial(t, s)
		c.send(bytes.Repeat(jsonFrame("pull"), requests))
		for range requests {
			c.expect(data)
		}
		eventually(t, "all are released", func() bool { return rel.n.Load() == requests })
	})
}

// A client that asks and never reads is stopped, then closed; others are served meanwhile, and
// memory stays bounded.
func TestReaderThatNeverReads(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.Limits.PartialFrameTimeout, o.Tick = 500*time.Millisecond, 5*time.Millisecond
		answer := bytes.Repeat([]byte("x"), 64<<10)
		var peak atomic.Int64
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			if bytes.Contains(frame, []byte("much")) {
				c.End(append(c.Begin(), answer...))
				peak.Store(max(peak.Load(), int64(c.Backlog())))
				return
			}
			echo(c, frame)
		}})
		bad := dial(t, s)
		stopped := make(chan int, 1)
		go func() {
			requests := bytes.Repeat(jsonFrame("much"), 1000)
			sent := 0
			for {
				n, err := bad.Write(requests)
				sent += n
				if err != nil {
					stopped <- sent
					return
				}
			}
		}()
		good := dial(t, s)
		for range 200 {
			good.send(jsonFrame("hello"))
			good.expect(jsonFrame("hello"))
		}
		receive(t, stopped)
		eventually(t, "it is counted", func() bool { return s.Stats().Refused["stalledOutput"] == 1 })
		if p := peak.Load(); p > pauseBacklog+2*int64(len(answer)) {
			t.Errorf("%d bytes were waiting at once", p)
		}
	})
}

func TestBacklogOverItsLimitCloses(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.Limits.MaxBacklog = 1 << 20
		conns := make(chan *Conn, 2)
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			if bytes.Contains(frame, []byte("end")) {
				c.End(append(c.Begin(), make([]byte, 16<<20)...))
			}
			conns <- c
		}})
		dial(t, s).send(jsonFrame("send"))
		c := receive(t, conns)
		taken := 0
		for c.Send(make([]byte, 128<<10)) {
			if taken++; taken > 1000 {
				t.Fatal("128 MiB were taken for a client that does not read")
			}
		}
		dial(t, s).send(jsonFrame("end"))
		c2 := receive(t, conns)
		eventually(t, "both are closed", func() bool {
			return c.Closed() && c2.Closed() && s.Stats().Refused["backlog"] == 2
		})
	})
}

// Unfinished frames that together exceed the memory there is come to their end one by one.
func TestScarceMemoryIsNoDeadlock(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		const clients, size = 12, 512 << 10
		o.Limits.MaxInFlightBytes = 1 << 20
		o.Reactors = 2
		o.Tick = 5 * time.Millisecond
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			if len(frame) > size {
				frame = append([]byte{0, 0, 0, 2}, "{}"...)
			}
			echo(c, frame)
		}})
		frame := jsonFrame(strings.Repeat("x", size))
		answered := make(chan bool, clients)
		for range clients {
			c := dial(t, s)
			half := len(frame) / 2
			c.send(frame[:half]) // may wait in the socket
			go func() {
				if _, err := c.Write(frame[half:]); err != nil {
					t.Error(err)
				}
				io.ReadFull(c.r, make([]byte, 10))
				answered <- true
			}()
		}
		small := dial(t, s)
		for range 50 {
			small.send(jsonFrame("small"))
			small.expect(jsonFrame("small"))
		}
		for range clients {
			receive(t, answered)
		}
	})
}
