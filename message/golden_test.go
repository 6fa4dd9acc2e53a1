package message

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// javaRecord is one line of testdata/java-killed.records.jsonl.
type javaRecord struct {
	Segment                             string
	At                                  int64
	Size, Magic, BodyCRC, QueueID, Flag int32
	QueueOffset, PhysicalOffset         int64
	SysFlag, ReconsumeTimes             int32
	BornTimestamp, StoreTimestamp       int64
	BornHost, StoreHost                 string
	PreparedTransactionOffset           int64
	OffsetMsgID                         string
	Topic, Body                         string
	Properties                          map[string]string
}

func TestGoldenJavaLog(t *testing.T) {
	f, err := os.Open("testdata/java-killed.records.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	segments := map[string][]byte{}
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		var want javaRecord
		if err := json.Unmarshal(lines.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		if segments[want.Segment] == nil {
			if segments[want.Segment], err = os.ReadFile(filepath.Join("testdata/java-killed", want.Segment)); err != nil {
				t.Fatal(err)
			}
		}
		checkGolden(t, segments[want.Segment][want.At:], &want)
	}
	if n < 100 {
		t.Errorf("only %d records", n)
	}
}

func checkGolden(t *testing.T, b []byte, want *javaRecord) {
	t.Helper()
	var r Record
	err := Decode(b, &r)
	if uint32(want.Magic) == MagicBlank {
		if size, _ := PeekSize(b); err != ErrBlank || size != want.Size {
			t.Errorf("%s at %d: %v, size %d, want a blank of %d", want.Segment, want.At, err, size, want.Size)
		}
		return
	}
	if err = errors.Join(err, r.VerifyCRC(b)); err != nil {
		t.Fatalf("%s at %d: %v", want.Segment, want.At, err)
	}
	host := func(s string) netip.AddrPort { return netip.MustParseAddrPort(strings.TrimPrefix(s, "/")) }
	got := javaRecord{Segment: want.Segment, At: want.At, Size: r.Size, Magic: int32(r.Magic), BodyCRC: int32(r.BodyCRC), QueueID: r.QueueID, Flag: r.Flag,
		QueueOffset: r.QueueOffset, PhysicalOffset: r.PhysicalOffset, SysFlag: r.SysFlag, ReconsumeTimes: r.ReconsumeTimes, BornTimestamp: r.BornTimestamp,
		StoreTimestamp: r.StoreTimestamp, BornHost: want.BornHost, StoreHost: want.StoreHost, PreparedTransactionOffset: r.PreparedTransactionOffset,
		OffsetMsgID: string(AppendOffsetID(nil, r.StoreHost, r.PhysicalOffset)), Topic: string(r.Topic), Body: hex.EncodeToString(r.Body)}
	if r.BornHost.AddrPort() != host(want.BornHost) || r.StoreHost.AddrPort() != host(want.StoreHost) {
		t.Errorf("at %d: hosts %v %v", want.At, r.BornHost.AddrPort(), r.StoreHost.AddrPort())
	}
	props := map[string]string{}
	for text := r.Properties; ; {
		name, value, rest, ok := NextProperty(text)
		if !ok {
			break
		}
		props[string(name)], text = string(value), rest
	}
	if !maps.Equal(props, want.Properties) {
		t.Errorf("at %d: properties %q, want %q", want.At, props, want.Properties)
	}
	got.Properties = want.Properties
	if g, w := mustJSON(got), mustJSON(want); !bytes.Equal(g, w) {
		t.Errorf("at %d:\n%s\n%s", want.At, g, w)
	}
	if !bytes.Equal(reencode(&r, b), b[:r.Size]) {
		t.Errorf("at %d: encoding it again gives other bytes than Java's", want.At)
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Records with both address families, a long topic and Java's checksum over the whole record: ours must come out the same, byte by byte.
func TestGoldenJavaChecksum(t *testing.T) {
	log, err := os.ReadFile("testdata/java-crc.commitlog")
	if err != nil {
		t.Fatal(err)
	}
	n, v6, long := 0, 0, 0
	for b := log; ; n++ {
		var r Record
		if err := Decode(b, &r); errors.Is(err, ErrZero) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := r.VerifyCRC(b); err != nil {
			t.Fatal(err)
		}
		if !endsWithCRC(r.Properties) {
			t.Fatalf("record %d has no checksum", n)
		}
		d := Draft{Topic: r.Topic, Body: r.Body, BodyCRC: BodyCRC(r.Body), Properties: r.Properties[:len(r.Properties)-CRCPropertySize], QueueID: r.QueueID,
			Flag: r.Flag, SysFlag: r.SysFlag, ReconsumeTimes: r.ReconsumeTimes, BornTimestamp: r.BornTimestamp, BornHost: r.BornHost,
			StoreHost: r.StoreHost, AppendCRC: true}
		ours := make([]byte, d.Size())
		d.Encode(ours, r.QueueOffset, r.PhysicalOffset, r.StoreTimestamp)
		if !bytes.Equal(ours, b[:r.Size]) {
			t.Errorf("record %d:\n%x\n%x", n, ours, b[:r.Size])
		}
		if r.BornHost.V6 || r.StoreHost.V6 {
			v6++
		}
		if r.Magic == MagicV2 {
			long++
		}
		b = b[r.Size:]
	}
	if n != 5 || v6 != 3 || long != 1 {
		t.Errorf("%d records, %d with IPv6, %d with a long topic", n, v6, long)
	}
}

func FuzzDecode(f *testing.F) {
	for _, d := range shapes() {
		f.Add(encode(&d))
	}
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	if log, err := os.ReadFile("testdata/java-crc.commitlog"); err == nil {
		f.Add(log)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		// A read behind the input is a fault: capacity ends with it.
		b := bytes.Clone(in)
		b = b[:len(b):len(b)]
		var r Record
		if err := Decode(b, &r); err != nil {
			return
		}
		if int(r.Size) > len(b) || len(r.Body)+len(r.Topic)+len(r.Properties) > int(r.Size)-FixedSize {
			t.Fatalf("%d bytes hold a record of %d with %d+%d+%d", len(b), r.Size, len(r.Body), len(r.Topic), len(r.Properties))
		}
		// b may be longer than the record, and as short as it.
		whole := b[:r.Size:r.Size]
		if a, b := r.VerifyCRC(b), r.VerifyCRC(whole); (a == nil) != (b == nil) {
			t.Fatalf("the verdict depends on what follows: %v, %v", a, b)
		}
		if r.VerifyCRC(whole) != nil || (r.Magic == MagicV2) != (len(r.Topic) > MaxTopicV1) || len(r.Topic) > MaxTopicV2 {
			return // sound, but not what Encode writes
		}
		if again := reencode(&r, whole); !bytes.Equal(again, whole) {
			t.Fatalf("encode(decode(b)):\n%x\n%x", again, whole)
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"128", 128}, {"1KiB", 1024}, {"4KiB", 4096}} {
		d := draft()
		d.Properties = []byte("KEYS\x01order-123456\x02UNIQ_KEY\x017F0000010001B4AAC27D0000000000000001\x02TAGS\x01TagA\x02WAIT\x01true\x02")
		d.Body = bytes.Repeat([]byte("x"), size.n)
		for _, kind := range []string{"body", "body+record"} {
			d.AppendCRC = kind != "body"
			dst := make([]byte, d.Size())
			b.Run(kind+"/"+size.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					d.BodyCRC = BodyCRC(d.Body)
					d.Encode(dst, 1, 2, 3)
				}
			})
		}
		b.Run("decode+verify/"+size.name, func(b *testing.B) {
			dst := encode(&d)
			var r Record
			b.ReportAllocs()
			for b.Loop() {
				if Decode(dst, &r) != nil || r.VerifyCRC(dst) != nil {
					b.Fatal("invalid")
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	d := draft()
	d.Properties = []byte("UNIQ_KEY\x017F0000010001B4AAC27D0000000000000001\x02WAIT\x01true\x02")
	rec := encode(&d)
	var r Record
	b.ReportAllocs()
	for b.Loop() {
		if Decode(rec, &r) != nil {
			b.Fatal("invalid")
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	d := draft()
	d.Body = make([]byte, 128)
	d.Properties = []byte("UNIQ_KEY\x017F0000010001B4AAC27D0000000000000001\x02WAIT\x01true\x02")
	dst := make([]byte, d.Size())
	b.ReportAllocs()
	for b.Loop() {
		d.Encode(dst, 1, 2, 3)
	}
}

func BenchmarkHashCodeMore(b *testing.B) {
	topic, key := []byte("TopicTest#"), []byte("7F0000010001B4AAC27D0000000000000001")
	b.ReportAllocs()
	for b.Loop() {
		if HashCodeMore(HashCode(topic), key) == 0 {
			b.Fatal("no hash")
		}
	}
}

func BenchmarkAppendOffsetID(b *testing.B) {
	var id [64]byte
	b.ReportAllocs()
	for b.Loop() {
		AppendOffsetID(id[:0], Host{Port: 10911}, 0x123456789A)
	}
}

func BenchmarkScanHot(b *testing.B) {
	text := []byte("KEYS\x01order-123456\x02UNIQ_KEY\x017F0000010001B4AAC27D0000000000000001\x02TAGS\x01TagA\x02WAIT\x01true\x02CLUSTER\x01DefaultCluster\x02")
	b.ReportAllocs()
	for b.Loop() {
		if h := ScanHot(text); len(h.Tags) == 0 {
			b.Fatal("no tags")
		}
	}
}
