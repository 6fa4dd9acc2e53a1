package netpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// What the first bytes of a connection are is decided here, once:
//
//	[ PROXY v1 line | PROXY v2 header ]  0x16 → TLS, anything else → plain frames
//
// None of the three can be taken for another: as frame lengths "PROX", the v2 signature
// and 0x16...... all lie far above MaxFrame.

const (
	proxyV1Prefix = "PROXY "
	proxyV1Max    = 107 // with CRLF, from the specification
	proxyV2Sig    = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV2Fixed  = 16
	proxyV2Max    = proxyV2Fixed + 4096 // addresses and TLVs; ours is the bound, the length field allows 64 KiB

	tlsHandshakeByte = 0x16
)

// sniffMax is the most that is read of a connection before it is known what it is.
const sniffMax = proxyV2Max + 1

var (
	errNotProxy = errors.New("not a proxy header")
	errProxy    = errors.New("bad PROXY header; check the load balancer's send-proxy setting")
)

type firstKind uint8

const (
	firstUnknown firstKind = iota // more bytes are needed
	firstPlain
	firstTLS
)

// proxyHeader is what a PROXY header said. Addresses are the zero value where it named none.
type proxyHeader struct {
	src, dst netip.AddrPort
}

// sniffFirst looks at the first bytes of a connection. used counts the PROXY header's
// bytes, which belong to nobody further up; it is final once kind is known.
func sniffFirst(buf []byte, proxy bool) (kind firstKind, h proxyHeader, used int, err error) {
	if proxy {
		h, used, err = parseProxy(buf)
		switch {
		case err == errNotProxy:
			used = 0
		case err != nil:
			return firstUnknown, proxyHeader{}, 0, err
		case used == 0:
			return firstUnknown, proxyHeader{}, 0, nil
		}
	}
	if len(buf) == used {
		return firstUnknown, proxyHeader{}, 0, nil
	}
	if buf[used] == tlsHandshakeByte {
		return firstTLS, h, used, nil
	}
	return firstPlain, h, used, nil
}

// parseProxy reads a PROXY v1 or v2 header at the start of buf. used == 0 without an error
// means that more bytes are needed; errNotProxy that there is none.
func parseProxy(buf []byte) (h proxyHeader, used int, err error) {
	switch {
	case startsWith(buf, proxyV1Prefix):
		if len(buf) < len(proxyV1Prefix) {
			return h, 0, nil
		}
		return parseProxyV1(buf)
	case startsWith(buf, proxyV2Sig):
		if len(buf) < proxyV2Fixed {
			return h, 0, nil
		}
		return parseProxyV2(buf)
	default:
		return h, 0, errNotProxy
	}
}

// startsWith compares as much of the prefix as has arrived.
func startsWith(buf []byte, prefix string) bool {
	n := min(len(buf), len(prefix))
	return string(buf[:n]) == prefix[:n]
}

func parseProxyV1(buf []byte) (h proxyHeader, used int, err error) {
	end := bytes.Index(buf[:min(len(buf), proxyV1Max)], []byte("\r\n"))
	if end < 0 {
		if len(buf) >= proxyV1Max {
			return h, 0, fmt.Errorf("%w: v1 line longer than %d bytes", errProxy, proxyV1Max)
		}
		return h, 0, nil
	}
	used = end + 2
	fields := strings.Split(string(buf[len(proxyV1Prefix):end]), " ")
	if fields[0] == "UNKNOWN" {
		return h, used, nil
	}
	if len(fields) != 5 || fields[0] != "TCP4" && fields[0] != "TCP6" {
		return h, 0, fmt.Errorf("%w: v1 line of %d fields, family %q", errProxy, len(fields), fields[0])
	}
	if h.src, err = proxyAddr(fields[1], fields[3], fields[0] == "TCP4"); err != nil {
		return proxyHeader{}, 0, err
	}
	if h.dst, err = proxyAddr(fields[2], fields[4], fields[0] == "TCP4"); err != nil {
		return proxyHeader{}, 0, err
	}
	return h, used, nil
}

func proxyAddr(addr, port string, v4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != v4 {
		return netip.AddrPort{}, fmt.Errorf("%w: address %q", errProxy, addr)
	}
	n := 0
	for _, d := range []byte(port) {
		if d < '0' || d > '9' {
			return netip.AddrPort{}, fmt.Errorf("%w: port %q", errProxy, port)
		}
		if n = n*10 + int(d-'0'); n > 65535 {
			return netip.AddrPort{}, fmt.Errorf("%w: port %q", errProxy, port)
		}
	}
	if port == "" {
		return netip.AddrPort{}, fmt.Errorf("%w: empty port", errProxy)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// parseProxyV2 is called with the fixed part whole:
//
//	| 12: signature | 1: version 2, command | 1: family, transport | 2: length of the rest | addresses | TLVs |
func parseProxyV2(buf []byte) (h proxyHeader, used int, err error) {
	command, family := buf[12], buf[13]
	if command>>4 != 2 || command&0xF > 1 {
		return h, 0, fmt.Errorf("%w: v2 version and command 0x%02x", errProxy, command)
	}
	used = proxyV2Fixed + int(binary.BigEndian.Uint16(buf[14:]))
	if used > proxyV2Max {
		return h, 0, fmt.Errorf("%w: v2 header of %d bytes, limit %d", errProxy, used, proxyV2Max)
	}
	if len(buf) < used {
		return h, 0, nil
	}
	if command&0xF == 0 {
		return h, used, nil // LOCAL: the balancer's own health check
	}
	rest := buf[proxyV2Fixed:used]
	size := 0
	switch family >> 4 {
	case 1:
		size = 4
	case 2:
		size = 16
	default:
		return h, used, nil // UNSPEC and UNIX name no address we could use
	}
	if len(rest) < 2*size+4 {
		return h, 0, fmt.Errorf("%w: v2 addresses of %d bytes, family 0x%02x", errProxy, len(rest), family)
	}
	src, _ := netip.AddrFromSlice(rest[:size])
	dst, _ := netip.AddrFromSlice(rest[size : 2*size])
	h.src = netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(rest[2*size:]))
	h.dst = netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(rest[2*size+2:]))
	return h, used, nil
}
