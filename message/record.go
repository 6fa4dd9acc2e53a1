package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// In the walk of one message: before this, broker/send.go checked the request; store/put.go encodes the Draft once,
// into the log's own memory; after this, commitlog/append.go publishes it. Recovery, dispatch and pull read it back.

// Magic codes of a record. Blank fills the rest of a segment: 4 bytes of length, 4 of magic, anything after.
const (
	MagicV1    uint32 = 0xDAA320A7
	MagicV2    uint32 = 0xDAA320AB
	MagicBlank uint32 = 0xCBD43194
)

// Sizes in bytes.
const (
	// BlankSize is what an append leaves room for at the end of each segment.
	BlankSize = 8
	// FixedSize is a V1 record with IPv4 hosts and empty body, topic and properties.
	FixedSize = 91
	// CRCPropertySize is the `__CRC32#` property at the end of the properties of a record that carries one.
	CRCPropertySize = 20
	// MaxProperties is the largest properties text; its length is a signed short.
	MaxProperties = 32767
	// MaxTopicV1 is the longest topic that a V1 record holds.
	MaxTopicV1 = 127
	// MaxTopicV2 is the longest topic at all (retry and DLQ names; TopicValidator allows 255).
	MaxTopicV2 = 255
)

// Places inside a record that do not move.
const (
	queueIDAt        = 12
	queueOffsetAt    = 20
	physicalOffsetAt = 28
	bornHostAt       = 48
)

// SysFlag bits (MessageSysFlag).
const (
	SysCompressed          = 1 << 0
	SysMultiTags           = 1 << 1
	SysTransactionMask     = 3 << 2
	SysTransactionNot      = 0 << 2
	SysTransactionPrepared = 1 << 2
	SysTransactionCommit   = 2 << 2
	SysTransactionRollback = 3 << 2
	SysBornHostV6          = 1 << 4
	SysStoreHostV6         = 1 << 5
	SysNeedUnwrap          = 1 << 6
	SysInnerBatch          = 1 << 7
)

// Host is an address as a record stores it.
type Host struct {
	IP   [16]byte // 4 bytes used unless V6
	V6   bool
	Port int32
}

// HostOf converts a socket address; an IPv4 address mapped into IPv6 becomes IPv4.
func HostOf(a netip.AddrPort) Host {
	ip := a.Addr().Unmap()
	h := Host{Port: int32(a.Port())}
	if ip.Is4() {
		v4 := ip.As4()
		copy(h.IP[:], v4[:])
		return h
	}
	h.IP, h.V6 = ip.As16(), true
	return h
}

// AddrPort converts back.
func (h Host) AddrPort() netip.AddrPort {
	if h.V6 {
		return netip.AddrPortFrom(netip.AddrFrom16(h.IP), uint16(h.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(h.IP[:4])), uint16(h.Port))
}

func (h *Host) size() int {
	if h.V6 {
		return 20
	}
	return 8
}

// put and hostFrom name the two sizes: a copy of a fixed size is a few instructions, any other a call.
func (h *Host) put(dst []byte) int {
	if h.V6 {
		copy(dst[:16], h.IP[:])
		binary.BigEndian.PutUint32(dst[16:], uint32(h.Port))
		return 20
	}
	copy(dst[:4], h.IP[:4])
	binary.BigEndian.PutUint32(dst[4:], uint32(h.Port))
	return 8
}

func hostFrom(src []byte, v6 bool) (h Host) {
	if v6 {
		h.IP, h.V6 = [16]byte(src[:16]), true
		h.Port = int32(binary.BigEndian.Uint32(src[16:]))
		return h
	}
	*(*[4]byte)(h.IP[:4]) = [4]byte(src[:4])
	h.Port = int32(binary.BigEndian.Uint32(src[4:]))
	return h
}

// Draft is a message before it has its place: everything but the offsets and the store time.
// The byte slices belong to the caller and must not change until Encode has returned.
type Draft struct {
	Topic                     []byte
	Body                      []byte
	BodyCRC                   uint32 // BodyCRC(Body): worked out by the caller, outside the log's lock
	Properties                []byte // text from the client
	Extra                     []byte // text that the broker adds behind it; a separator is put between them where it is missing
	QueueID                   int32
	Flag                      int32
	SysFlag                   int32 // the two host bits are set by Encode
	ReconsumeTimes            int32
	BornTimestamp             int64
	PreparedTransactionOffset int64
	BornHost                  Host
	StoreHost                 Host
	AppendCRC                 bool // add the `__CRC32#` property over the whole record (enabledAppendPropCRC)
}

// BodyCRC is the checksum that clients verify.
func BodyCRC(body []byte) uint32 { return crc32.ChecksumIEEE(body) & 0x7FFFFFFF }

func (d *Draft) propertiesSize() int {
	n := len(d.Properties) + len(d.Extra)
	tail := len(d.Extra) > 0 || d.AppendCRC
	if tail && needsSeparator(d.Properties) {
		n++
	}
	if d.AppendCRC {
		if needsSeparator(d.Extra) {
			n++
		}
		n += CRCPropertySize
	}
	return n
}

func needsSeparator(text []byte) bool {
	return len(text) > 0 && text[len(text)-1] != PropertySeparator
}

// Size is the number of bytes that Encode writes.
func (d *Draft) Size() int {
	n := FixedSize - 16 + d.BornHost.size() + d.StoreHost.size() + len(d.Body) + len(d.Topic) + d.propertiesSize()
	if len(d.Topic) > MaxTopicV1 {
		n++
	}
	return n
}

// Check tells why the message cannot become a record, or nil. maxBody is maxMessageSize.
func (d *Draft) Check(maxBody int) error {
	switch {
	case len(d.Body) > maxBody:
		return fmt.Errorf("message body of %d bytes is larger than maxMessageSize %d", len(d.Body), maxBody)
	case d.propertiesSize() > MaxProperties:
		return fmt.Errorf("message properties of %d bytes are longer than %d", d.propertiesSize(), MaxProperties)
	case len(d.Topic) > MaxTopicV2:
		return fmt.Errorf("topic of %d bytes is longer than %d", len(d.Topic), MaxTopicV2)
	case len(d.Topic) == 0:
		return errors.New("topic is empty")
	}
	return nil
}

// Encode writes the record into dst, which must have Size() bytes, and returns that size. It is called once a message, with
// the log's tail held, and takes nothing but the copy: no allocation, no clock.
func (d *Draft) Encode(dst []byte, queueOffset, physicalOffset, storeTimestamp int64) int {
	be := binary.BigEndian
	size := d.Size()
	dst = dst[:size]
	magic := MagicV1
	if len(d.Topic) > MaxTopicV1 {
		magic = MagicV2
	}
	sys := d.SysFlag &^ (SysBornHostV6 | SysStoreHostV6)
	if d.BornHost.V6 {
		sys |= SysBornHostV6
	}
	if d.StoreHost.V6 {
		sys |= SysStoreHostV6
	}
	head := (*[bornHostAt]byte)(dst) // one look at the length for all of these
	be.PutUint32(head[0:], uint32(size))
	be.PutUint32(head[4:], magic)
	be.PutUint32(head[8:], d.BodyCRC)
	be.PutUint32(head[queueIDAt:], uint32(d.QueueID))
	be.PutUint32(head[16:], uint32(d.Flag))
	be.PutUint64(head[queueOffsetAt:], uint64(queueOffset))
	be.PutUint64(head[physicalOffsetAt:], uint64(physicalOffset))
	be.PutUint32(head[36:], uint32(sys))
	be.PutUint64(head[40:], uint64(d.BornTimestamp))
	at := bornHostAt
	at += d.BornHost.put(dst[at:])
	be.PutUint64(dst[at:], uint64(storeTimestamp))
	at += 8
	at += d.StoreHost.put(dst[at:])
	last := (*[16]byte)(dst[at:])
	be.PutUint32(last[0:], uint32(d.ReconsumeTimes))
	be.PutUint64(last[4:], uint64(d.PreparedTransactionOffset))
	be.PutUint32(last[12:], uint32(len(d.Body)))
	at += len(last)
	at += copy(dst[at:], d.Body)
	if magic == MagicV2 {
		dst[at] = byte(len(d.Topic) >> 8)
		at++
	}
	dst[at] = byte(len(d.Topic))
	at++
	at += copy(dst[at:], d.Topic)
	d.encodeProperties(dst, at)
	return size
}

// encodeProperties writes the last field at dst[at:], which ends the record.
func (d *Draft) encodeProperties(dst []byte, at int) {
	binary.BigEndian.PutUint16(dst[at:], uint16(len(dst)-at-2))
	at += 2
	start := at
	at += copy(dst[at:], d.Properties)
	if (len(d.Extra) > 0 || d.AppendCRC) && needsSeparator(d.Properties) {
		dst[at] = PropertySeparator
		at++
	}
	at += copy(dst[at:], d.Extra)
	if d.AppendCRC {
		if needsSeparator(d.Extra) {
			dst[at] = PropertySeparator
			at++
		}
	} else {
		// A sender's own property of that name at the end would be held against the record when it is read: it gets the right value.
		if !endsWithCRC(dst[start:]) {
			return
		}
		at = len(dst) - CRCPropertySize
	}
	putCRCProperty(dst[at:], crc32.ChecksumIEEE(dst[:at])&0x7FFFFFFF)
}

// endsWithCRC tells whether a properties text ends with what is taken for the checksum of its record.
func endsWithCRC(text []byte) bool {
	const name = PropertyCRC32 + "\x01"
	if len(text) < CRCPropertySize {
		return false
	}
	return string(text[len(text)-CRCPropertySize:][:len(name)]) == name
}

// putCRCProperty writes `__CRC32#`, 0x01, ten decimal digits with the lowest first, 0x02.
func putCRCProperty(dst []byte, crc uint32) {
	n := copy(dst, PropertyCRC32)
	dst[n] = NameValueSeparator
	for i := n + 1; i <= n+10; i++ {
		dst[i] = '0' + byte(crc%10)
		crc /= 10
	}
	dst[n+11] = PropertySeparator
}

// Record is a view into an encoded record: the slices belong to whoever owns the bytes it was read from.
type Record struct {
	Size                      int32
	Magic                     uint32
	BodyCRC                   uint32
	QueueID                   int32
	Flag                      int32
	SysFlag                   int32
	ReconsumeTimes            int32
	QueueOffset               int64
	PhysicalOffset            int64
	BornTimestamp             int64
	StoreTimestamp            int64
	PreparedTransactionOffset int64
	BornHost                  Host
	StoreHost                 Host
	Body                      []byte
	Topic                     []byte
	Properties                []byte
}

// What the bytes at a log position can be besides a record.
var (
	// ErrBlank: the rest of the segment is filler; the log goes on in the next segment.
	ErrBlank = errors.New("blank: the rest of the segment is unused")
	// ErrZero: nothing was ever written here.
	ErrZero = errors.New("zero: no record was written here")
	// ErrShort: the record goes on behind the bytes given.
	ErrShort = errors.New("record is longer than the bytes at hand")
)

// InvalidError is a record whose lengths contradict each other or whose checksum is wrong.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return "invalid record: " + e.Reason }

var (
	errMagic      = &InvalidError{"unknown magic code"}
	errSize       = &InvalidError{"total size does not fit its fields"}
	errBodyCRC    = &InvalidError{"body checksum differs"}
	errRecordCRC  = &InvalidError{"record checksum differs"}
	errProperties = &InvalidError{"negative properties length"}
)

// Decode reads the record at the start of b into r. It checks every length against the others but no checksum (VerifyCRC).
// b may be longer than the record.
func Decode(b []byte, r *Record) error {
	be := binary.BigEndian
	if len(b) < BlankSize {
		return ErrShort
	}
	size, magic := int64(int32(be.Uint32(b))), be.Uint32(b[4:])
	switch magic {
	case MagicV1, MagicV2:
	case MagicBlank:
		return ErrBlank
	case 0:
		if size == 0 {
			return ErrZero
		}
		return errMagic
	default:
		return errMagic
	}
	if size < FixedSize {
		return errSize
	}
	if int64(len(b)) < size {
		return ErrShort
	}
	b = b[:size:size]
	head := (*[bornHostAt]byte)(b) // one look at the length for all of these
	r.Size, r.Magic = int32(size), magic
	r.BodyCRC = be.Uint32(head[8:])
	r.QueueID = int32(be.Uint32(head[queueIDAt:]))
	r.Flag = int32(be.Uint32(head[16:]))
	r.QueueOffset = int64(be.Uint64(head[queueOffsetAt:]))
	r.PhysicalOffset = int64(be.Uint64(head[physicalOffsetAt:]))
	r.SysFlag = int32(be.Uint32(head[36:]))
	r.BornTimestamp = int64(be.Uint64(head[40:]))
	return r.decodeVariable(b)
}

// decodeVariable reads what stands behind the first host, whose places depend on lengths before them.
func (r *Record) decodeVariable(b []byte) error {
	be := binary.BigEndian
	bornV6, storeV6 := r.SysFlag&SysBornHostV6 != 0, r.SysFlag&SysStoreHostV6 != 0
	fixed := FixedSize
	if bornV6 {
		fixed += 12
	}
	if storeV6 {
		fixed += 12
	}
	if r.Magic == MagicV2 {
		fixed++
	}
	if len(b) < fixed {
		return errSize
	}
	at := bornHostAt
	r.BornHost = hostFrom(b[at:], bornV6)
	at += r.BornHost.size()
	r.StoreTimestamp = int64(be.Uint64(b[at:]))
	at += 8
	r.StoreHost = hostFrom(b[at:], storeV6)
	at += r.StoreHost.size()
	last := (*[16]byte)(b[at:])
	r.ReconsumeTimes = int32(be.Uint32(last[0:]))
	r.PreparedTransactionOffset = int64(be.Uint64(last[4:]))
	bodyLen := int64(int32(be.Uint32(last[12:])))
	at += len(last)
	if bodyLen < 0 || bodyLen > int64(len(b)-fixed) {
		return errSize
	}
	r.Body = b[at : at+int(bodyLen) : at+int(bodyLen)]
	at += int(bodyLen)
	topicLen := int(b[at])
	if r.Magic == MagicV2 {
		topicLen = topicLen<<8 | int(b[at+1])
		at++
	}
	at++
	if topicLen > len(b)-fixed-int(bodyLen) {
		return errSize
	}
	r.Topic = b[at : at+topicLen : at+topicLen]
	at += topicLen
	propLen := int(int16(be.Uint16(b[at:])))
	at += 2
	if propLen < 0 {
		return errProperties
	}
	if at+propLen != len(b) {
		return errSize
	}
	r.Properties = b[at:len(b):len(b)]
	return nil
}

// VerifyCRC checks the body's checksum and, where the record carries one, the checksum over all of it.
// b is what Decode read r from.
func (r *Record) VerifyCRC(b []byte) error {
	if len(r.Body) > 0 && BodyCRC(r.Body) != r.BodyCRC {
		return errBodyCRC
	}
	if !endsWithCRC(r.Properties) {
		return nil
	}
	tail := r.Properties[len(r.Properties)-CRCPropertySize:]
	var want [CRCPropertySize]byte
	putCRCProperty(want[:], crc32.ChecksumIEEE(b[:int(r.Size)-CRCPropertySize])&0x7FFFFFFF)
	if string(tail) != string(want[:]) {
		return errRecordCRC
	}
	return nil
}

// PeekSize reads the size and magic at the start of b, which must have 8 bytes.
func PeekSize(b []byte) (size int32, magic uint32) {
	return int32(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
}

// PeekBytes is what PhysicalOffsetOf needs.
const PeekBytes = physicalOffsetAt + 8

// PhysicalOffsetOf reads where in the log the record says that it starts.
func PhysicalOffsetOf(b []byte) int64 { return int64(binary.BigEndian.Uint64(b[physicalOffsetAt:])) }

// PutBlank writes the filler that ends a segment with room bytes left; room is at least BlankSize.
func PutBlank(dst []byte, room int) {
	binary.BigEndian.PutUint32(dst, uint32(room))
	binary.BigEndian.PutUint32(dst[4:], MagicBlank)
}

// StoreTimestampOf reads the store time from the first 76 bytes of a record.
func StoreTimestampOf(b []byte) int64 {
	at := bornHostAt + 8
	if binary.BigEndian.Uint32(b[36:])&SysBornHostV6 != 0 {
		at += 12
	}
	return int64(binary.BigEndian.Uint64(b[at:]))
}
