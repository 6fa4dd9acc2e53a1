package message

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
)

// AppendOffsetID adds the offset message id of the record at physicalOffset, stored by host, as upper-case hex: 32 digits, 56
// for an IPv6 host (MessageDecoder.createMessageId). Clients find the broker by the address inside.
func AppendOffsetID(dst []byte, host Host, physicalOffset int64) []byte {
	var raw [28]byte
	n := host.put(raw[:])
	binary.BigEndian.PutUint64(raw[n:], uint64(physicalOffset))
	var id [2 * len(raw)]byte
	for i := 0; i < n+8; i += 4 {
		putHex(id[2*i:2*i+8], binary.BigEndian.Uint32(raw[i:]))
	}
	return append(dst, id[:2*n+16]...)
}

// putHex writes the eight digits of n, all at once: a digit in each byte of a word, and 7 more where the letters begin.
func putHex(dst []byte, n uint32) {
	const each uint64 = 0x0101010101010101
	w := uint64(n)
	w = (w<<16 | w) & 0x0000FFFF_0000FFFF
	w = (w<<8 | w) & 0x00FF00FF_00FF00FF
	w = (w<<4 | w) & (each * 0x0F)
	letters := (w + each*6) >> 4 & each
	binary.BigEndian.PutUint64(dst, w+each*'0'+letters*7)
}

// ParseOffsetID reads an offset message id.
func ParseOffsetID(id string) (host netip.AddrPort, physicalOffset int64, err error) {
	raw, err := hex.DecodeString(id)
	if err != nil || (len(raw) != 16 && len(raw) != 28) {
		return netip.AddrPort{}, 0, fmt.Errorf("message id %q is not 32 or 56 hex digits", id)
	}
	h := hostFrom(raw, len(raw) == 28)
	return h.AddrPort(), int64(binary.BigEndian.Uint64(raw[len(raw)-8:])), nil
}
