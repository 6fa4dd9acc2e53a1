package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var (
	hostV4 = HostOf(netip.MustParseAddrPort("10.1.2.3:40001"))
	hostV6 = HostOf(netip.MustParseAddrPort("[2001:db8::1]:10911"))
)

func draft() Draft {
	d := Draft{Topic: []byte("Topic"), Body: []byte("hello"), Properties: []byte("TAGS\x01a\x02"), QueueID: 3, Flag: 7,
		SysFlag: SysTransactionCommit, ReconsumeTimes: 2, BornTimestamp: 1700000000123, PreparedTransactionOffset: 1 << 40,
		BornHost: hostV4, StoreHost: hostV4}
	d.BodyCRC = BodyCRC(d.Body)
	return d
}

func encode(d *Draft) []byte {
	b := make([]byte, d.Size())
	d.Encode(b, 11, 1<<41, 1700000000456)
	return b
}

// shapes are drafts of every layout.
func shapes() map[string]Draft {
	all := map[string]Draft{}
	for name, change := range map[string]func(d *Draft){
		"plain":                   func(d *Draft) {},
		"no body":                 func(d *Draft) { d.Body = nil },
		"no properties":           func(d *Draft) { d.Properties = nil },
		"born on IPv6":            func(d *Draft) { d.BornHost = hostV6 },
		"stored on IPv6":          func(d *Draft) { d.StoreHost = hostV6 },
		"both on IPv6":            func(d *Draft) { d.BornHost, d.StoreHost = hostV6, hostV6 },
		"topic of 127 is v1":      func(d *Draft) { d.Topic = bytes.Repeat([]byte("t"), 127) },
		"topic of 128 is v2":      func(d *Draft) { d.Topic = bytes.Repeat([]byte("t"), 128) },
		"topic of 255 on IPv6":    func(d *Draft) { d.Topic, d.BornHost = bytes.Repeat([]byte("t"), 255), hostV6 },
		"extra properties":        func(d *Draft) { d.Extra = []byte("CLUSTER\x01c\x02") },
		"extra, separator missed": func(d *Draft) { d.Properties, d.Extra = []byte("TAGS\x01a"), []byte("CLUSTER\x01c") },
		"largest properties":      func(d *Draft) { d.Properties = []byte("p\x01" + strings.Repeat("v", MaxProperties-30) + "\x02") },
	} {
		for _, crc := range []bool{false, true} {
			d := draft()
			change(&d)
			d.AppendCRC = crc
			d.BodyCRC = BodyCRC(d.Body)
			all[fmt.Sprintf("%s, crc %t", name, crc)] = d
		}
	}
	return all
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	for name, d := range shapes() {
		t.Run(name, func(t *testing.T) {
			b := encode(&d)
			var r Record
			if err := Decode(append(bytes.Clone(b), "more"...), &r); err != nil {
				t.Fatal(err)
			}
			sys := d.SysFlag
			if d.BornHost.V6 {
				sys |= SysBornHostV6
			}
			if d.StoreHost.V6 {
				sys |= SysStoreHostV6
			}
			magic := MagicV1
			if len(d.Topic) > MaxTopicV1 {
				magic = MagicV2
			}
			want := Record{Size: int32(len(b)), Magic: magic, BodyCRC: d.BodyCRC, QueueID: 3, Flag: 7, SysFlag: sys, ReconsumeTimes: 2,
				QueueOffset: 11, PhysicalOffset: 1 << 41, BornTimestamp: d.BornTimestamp, StoreTimestamp: 1700000000456,
				PreparedTransactionOffset: 1 << 40, BornHost: d.BornHost, StoreHost: d.StoreHost, Body: r.Body, Topic: r.Topic, Properties: r.Properties}
			if got := fmt.Sprint(r); got != fmt.Sprint(want) {
				t.Errorf("got  %s\nwant %v", got, want)
			}
			if !bytes.Equal(r.Body, d.Body) || !bytes.Equal(r.Topic, d.Topic) {
				t.Errorf("body %q topic %q", r.Body, r.Topic)
			}
			if err := r.VerifyCRC(b); err != nil {
				t.Error(err)
			}
			if StoreTimestampOf(b) != r.StoreTimestamp || PhysicalOffsetOf(b) != r.PhysicalOffset {
				t.Error("the peeks differ from Decode")
			}
			if again := reencode(&r, b); !bytes.Equal(again, b) {
				t.Errorf("encode(decode(b)) differs from b:\n%x\n%x", again, b)
			}
		})
	}
}

// reencode writes r again; what stands in its properties stays as it is.
func reencode(r *Record, b []byte) []byte {
	d := Draft{Topic: r.Topic, Body: r.Body, BodyCRC: r.BodyCRC, Properties: r.Properties, QueueID: r.QueueID, Flag: r.Flag, SysFlag: r.SysFlag,
		ReconsumeTimes: r.ReconsumeTimes, BornTimestamp: r.BornTimestamp, PreparedTransactionOffset: r.PreparedTransactionOffset,
		BornHost: r.BornHost, StoreHost: r.StoreHost}
	out := make([]byte, d.Size())
	d.Encode(out, r.QueueOffset, r.PhysicalOffset, r.StoreTimestamp)
	return out
}

func TestPropertiesOfARecord(t *testing.T) {
	crc := "__CRC32#\x01"
	for _, c := range []struct {
		name, properties, extra string
		crc                     bool
		want                    string // up to the checksum's digits
	}{
		{"as they came", "a\x01b\x02", "", false, "a\x01b\x02"},
		{"nothing added, no separator added", "a\x01b", "", false, "a\x01b"},
		{"separator before extra", "a\x01b", "c\x01d\x02", false, "a\x01b\x02c\x01d\x02"},
		{"extra alone", "", "c\x01d\x02", false, "c\x01d\x02"},
		{"separator before the checksum", "a\x01b", "", true, "a\x01b\x02" + crc},
		{"separator behind extra", "a\x01b\x02", "c\x01d", true, "a\x01b\x02c\x01d\x02" + crc},
		{"checksum alone", "", "", true, crc},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := draft()
			d.Properties, d.Extra, d.AppendCRC = []byte(c.properties), []byte(c.extra), c.crc
			var r Record
			b := encode(&d)
			if err := errors.Join(Decode(b, &r), r.VerifyCRC(b)); err != nil {
				t.Fatal(err)
			}
			got := string(r.Properties)
			if c.crc {
				got = got[:len(got)-11]
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// A sender's own __CRC32# must not make recovery take its message for damaged.
func TestForeignChecksumPropertyIsMadeRight(t *testing.T) {
	for _, extra := range []string{"", "__CRC32#\x010000000000\x02"} {
		d := draft()
		d.Properties, d.Extra = []byte("a\x01b\x02__CRC32#\x010123456789\x02"), []byte(extra)
		b := encode(&d)
		var r Record
		if err := errors.Join(Decode(b, &r), r.VerifyCRC(b)); err != nil {
			t.Errorf("extra %q: %v", extra, err)
		}
	}
}

func TestEveryLengthLieIsFound(t *testing.T) {
	put32 := func(at int, v uint32) func(b []byte) { return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) } }
	const bodyLenAt, topicAt, propLenAt = 84, 93, 99
	plain := draft2()
	size := uint32(len(encode(&plain)))
	for _, c := range []struct {
		name string
		lie  func(b []byte)
		want error
	}{
		{"negative size", put32(0, 1<<31), errSize},
		{"size zero", put32(0, 0), errSize},
		{"size below the fixed part", put32(0, FixedSize-1), errSize},
		{"size one too small", put32(0, size-1), errSize},
		{"size one too large", put32(0, size+1), ErrShort},
		{"size of 2 GiB", put32(0, 1<<31-1), ErrShort},
		{"unknown magic", put32(4, 0xDAA320A8), errMagic},
		{"magic zero with a size", put32(4, 0), errMagic},
		{"blank", put32(4, MagicBlank), ErrBlank},
		{"zero", func(b []byte) { clear(b[:8]) }, ErrZero},
		{"v2 where v1 was written", put32(4, MagicV2), errSize},
		{"flag says born on IPv6", put32(36, SysBornHostV6), errSize},
		{"flag says stored on IPv6", put32(36, SysStoreHostV6), errSize},
		{"body longer", put32(bodyLenAt, 6), errSize},
		{"body shorter", put32(bodyLenAt, 4), errSize},
		{"body negative", put32(bodyLenAt, 1<<31), errSize},
		{"body of 2 GiB", put32(bodyLenAt, 1<<31-1), errSize},
		{"topic longer", func(b []byte) { b[topicAt]++ }, errSize},
		{"topic of 255", func(b []byte) { b[topicAt] = 255 }, errSize},
		{"properties negative", func(b []byte) { b[propLenAt] = 0x80 }, errProperties},
		{"properties shorter", func(b []byte) { b[propLenAt+1]-- }, errSize},
		{"properties longer", func(b []byte) { b[propLenAt+1]++ }, errSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := draft2()
			b := encode(&d)
			c.lie(b)
			if err := Decode(b, new(Record)); err != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	d := draft2()
	b := encode(&d)
	for n := range b {
		if err := Decode(b[:n:n], new(Record)); err != ErrShort {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
}

// draft2 has sysFlag 0, so that a lie about the hosts is one about lengths alone.
func draft2() Draft {
	d := draft()
	d.SysFlag = 0
	return d
}

// With the record's checksum no flipped bit goes unnoticed; without, those in the body do not.
func TestFlippedBits(t *testing.T) {
	for _, withCRC := range []bool{true, false} {
		d := draft()
		d.AppendCRC = withCRC
		b := encode(&d)
		for bit := range len(b) * 8 {
			inBody := bit/8 >= 88 && bit/8 < 88+len(d.Body)
			if !withCRC && !inBody {
				continue
			}
			bad := bytes.Clone(b)
			bad[bit/8] ^= 1 << (bit % 8)
			var r Record
			err := Decode(bad, &r)
			if err == nil {
				err = r.VerifyCRC(bad)
			}
			// The name of the checksum is not protected by it: then the record has none.
			if name := len(b) - CRCPropertySize; withCRC && bit/8 >= name && bit/8 < name+9 {
				continue
			}
			if err == nil {
				t.Errorf("crc %t: bit %d of byte %d", withCRC, bit%8, bit/8)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(d *Draft)
		want   string
	}{
		{"fits", func(d *Draft) {}, ""},
		{"body at the limit", func(d *Draft) { d.Body = make([]byte, 100) }, ""},
		{"body over the limit", func(d *Draft) { d.Body = make([]byte, 101) }, "body of 101 bytes"},
		{"properties at the limit", func(d *Draft) { d.Properties = make([]byte, MaxProperties) }, ""},
		{"the checksum counts", func(d *Draft) { d.Properties, d.AppendCRC = make([]byte, MaxProperties-CRCPropertySize), true }, "properties of"},
		{"topic of 255", func(d *Draft) { d.Topic = make([]byte, 255) }, ""},
		{"topic of 256", func(d *Draft) { d.Topic = make([]byte, 256) }, "topic of 256 bytes"},
		{"no topic", func(d *Draft) { d.Topic = nil }, "topic is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := draft()
			c.change(&d)
			err := d.Check(100)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestBlank(t *testing.T) {
	b := make([]byte, 16)
	PutBlank(b, 12345)
	if size, magic := PeekSize(b); size != 12345 || magic != MagicBlank || Decode(b, new(Record)) != ErrBlank {
		t.Errorf("size %d magic %x", size, magic)
	}
	if err := Decode(make([]byte, 7), new(Record)); err != ErrShort {
		t.Errorf("seven bytes: %v", err)
	}
}

func TestHosts(t *testing.T) {
	for _, text := range []string{"10.1.2.3:40001", "[2001:db8::1]:65535", "0.0.0.0:0"} {
		a := netip.MustParseAddrPort(text)
		if got := HostOf(a).AddrPort(); got != a {
			t.Errorf("%s became %s", a, got)
		}
	}
	if h := HostOf(netip.MustParseAddrPort("[::ffff:10.1.2.3]:1")); h.V6 {
		t.Error("an IPv4 address mapped into IPv6 stays IPv6")
	}
}

func TestOffsetID(t *testing.T) {
	for _, c := range []struct{ host, id string }{
		{"10.1.2.3:10911", "0A01020300002A9F0000000000003039"},
		{"[2001:db8::1]:10911", "20010DB800000000000000000000000100002A9F0000000000003039"},
	} {
		id := string(AppendOffsetID(nil, HostOf(netip.MustParseAddrPort(c.host)), 12345))
		if id != c.id {
			t.Errorf("%s: %s, want %s", c.host, id, c.id)
		}
		host, off, err := ParseOffsetID(id)
		if err != nil || host.String() != c.host || off != 12345 {
			t.Errorf("%s: %v %d %v", id, host, off, err)
		}
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 30), strings.Repeat("g", 32), strings.Repeat("0", 58)} {
		if _, _, err := ParseOffsetID(bad); err == nil {
			t.Errorf("%q is an id", bad)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for name, d := range shapes() {
		b := encode(&d)
		var r Record
		var h Hot
		id := make([]byte, 0, 64)
		for what, f := range map[string]func(){
			"Encode":         func() { d.Encode(b, 1, 2, 3) },
			"Decode":         func() { _ = Decode(b, &r) },
			"VerifyCRC":      func() { _ = r.VerifyCRC(b) },
			"ScanHot":        func() { h = ScanHot(r.Properties) },
			"HashCode":       func() { _ = TagsCode(h.Tags) },
			"AppendOffsetID": func() { id = AppendOffsetID(id[:0], d.StoreHost, 1) },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s: %s allocates %v times", name, what, n)
			}
		}
	}
}
