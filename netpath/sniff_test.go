package netpath

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// proxyV2 builds a version 2 header.
func proxyV2(command, family byte, rest []byte) []byte {
	h := append([]byte(proxyV2Sig), 0x20|command, family)
	return append(binary.BigEndian.AppendUint16(h, uint16(len(rest))), rest...)
}

func proxyV2TCP4(src, dst netip.AddrPort, tlvs []byte) []byte {
	rest := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	rest = binary.BigEndian.AppendUint16(rest, src.Port())
	rest = binary.BigEndian.AppendUint16(rest, dst.Port())
	return proxyV2(1, 0x11, append(rest, tlvs...))
}

func TestSniffFirst(t *testing.T) {
	src, dst := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.1:10911")
	v1 := "PROXY TCP4 192.0.2.7 198.51.100.1 4711 10911\r\n"
	v2 := string(proxyV2TCP4(src, dst, []byte("tlv")))
	frame := string(jsonFrame(""))
	tests := []struct {
		name  string
		in    string
		proxy bool
		kind  firstKind
		used  int
		src   string
		bad   bool
	}{
		{"no byte says nothing", "", true, firstUnknown, 0, "", false},
		{"one byte of a frame is enough", frame[:1], true, firstPlain, 0, "", false},
		{"0x16 is TLS", "\x16\x03\x01", true, firstTLS, 0, "", false},
		{"PROXY is not looked for when it is off", v1, false, firstPlain, 0, "", false},
		{"half a v1 line is awaited", v1[:20], true, firstUnknown, 0, "", false},
		{"P alone is awaited", "P", true, firstUnknown, 0, "", false},
		{"a v1 line alone is awaited", v1, true, firstUnknown, 0, "", false},
		{"v1 then plain", v1 + frame, true, firstPlain, len(v1), "192.0.2.7:4711", false},
		{"v1 then TLS", v1 + "\x16", true, firstTLS, len(v1), "192.0.2.7:4711", false},
		{"v1 for IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 10911\r\n\x00", true, firstPlain, 47, "[2001:db8::7]:4711", false},
		{"v1 UNKNOWN keeps the peer's address", "PROXY UNKNOWN ffff:f...f:ffff ffff 65535 65535\r\n\x00", true, firstPlain, 48, "", false},
		{"v1 with a wrong family is refused", "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n\x00", true, firstUnknown, 0, "", true},
		{"v1 with port 65536 is refused", "PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n\x00", true, firstUnknown, 0, "", true},
		{"v1 with an empty port is refused", "PROXY TCP4 192.0.2.7 192.0.2.8  2\r\n\x00", true, firstUnknown, 0, "", true},
		{"v1 with too few fields is refused", "PROXY TCP4 192.0.2.7\r\n\x00", true, firstUnknown, 0, "", true},
		{"v1 without end is refused", "PROXY UNKNOWN" + strings.Repeat(" ", 100), true, firstUnknown, 0, "", true},
		{"half a v2 header is awaited", v2[:20], true, firstUnknown, 0, "", false},
		{"v2 then plain", v2 + frame, true, firstPlain, len(v2), "192.0.2.7:4711", false},
		{"v2 LOCAL keeps the peer's address", string(proxyV2(0, 0, nil)) + "\x00", true, firstPlain, 16, "", false},
		{"v2 UNIX keeps the peer's address", string(proxyV2(1, 0x31, make([]byte, 216))) + "\x00", true, firstPlain, 232, "", false},
		{"v2 with too short addresses is refused", string(proxyV2(1, 0x21, make([]byte, 35))) + "\x00", true, firstUnknown, 0, "", true},
		{"v2 command 2 is refused", string(proxyV2(2, 0x11, make([]byte, 12))) + "\x00", true, firstUnknown, 0, "", true},
		{"v2 over 4 KiB is refused before it arrives", string(proxyV2(1, 0x11, make([]byte, 4097))[:16]), true, firstUnknown, 0, "", true},
		{"v2 of 4 KiB is taken", string(proxyV2(0, 0x11, make([]byte, 4096))) + "\x00", true, firstPlain, proxyV2Max, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kind, h, used, err := sniffFirst([]byte(tt.in), tt.proxy)
			if tt.bad {
				if !errors.Is(err, errProxy) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || kind != tt.kind || used != tt.used {
				t.Fatalf("kind %d, used %d, error %v", kind, used, err)
			}
			if got := h.src; tt.src == "" && got.IsValid() || tt.src != "" && got.String() != tt.src {
				t.Errorf("source %v, want %q", got, tt.src)
			}
		})
	}
}

// FuzzParseProxy: no panic, no read beyond the input, bounds kept, and a header that
// arrives byte by byte means the same.
func FuzzParseProxy(f *testing.F) {
	src, dst := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.1:10911")
	f.Add([]byte("PROXY TCP4 192.0.2.7 198.51.100.1 4711 10911\r\nrest"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("PROXY TCP6 2001:db8::7 ::1 0 65535\r\n"))
	f.Add(proxyV2TCP4(src, dst, []byte{1, 0, 1, 'x'}))
	f.Add(proxyV2(0, 0, nil))
	f.Add(proxyV2(1, 0x21, make([]byte, 36)))
	f.Add([]byte(proxyV2Sig))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, used, err := parseProxy(data[:len(data):len(data)])
		if used < 0 || used > len(data) || used > proxyV2Max || err != nil && used != 0 {
			t.Fatalf("used %d of %d, error %v", used, len(data), err)
		}
		if h.src.IsValid() != h.dst.IsValid() || h.src.Addr().Zone() != "" {
			t.Fatalf("addresses %v, %v", h.src, h.dst)
		}
		for n := range len(data) {
			h2, used2, err2 := parseProxy(data[:n:n])
			switch {
			case err2 != nil && err == nil:
				t.Fatalf("%v after %d bytes, accepted after %d", err2, n, len(data))
			case used2 > 0 && (used2 != used || h2 != h):
				t.Fatalf("%d bytes after %d, %d after %d", used2, n, used, len(data))
			}
		}
	})
}
