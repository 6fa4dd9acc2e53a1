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
	const digits = "0123456789ABCDEF"
	for _, b := range raw[:n+8] {
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
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
