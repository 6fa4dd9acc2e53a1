package commitlog

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// BenchmarkGroupCommit: appenders that wait for the device after each record of 1 KiB.
func BenchmarkGroupCommit(b *testing.B) {
	for _, appenders := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("appenders-%d", appenders), func(b *testing.B) {
			l := openLog(b, Options{FS: ioengine.OS(), Dir: b.TempDir(), SegmentSize: 256 << 20}, 0, false)
			defer closeLog(b, l.Log)
			var seq int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for n := range appenders {
				w := newWriter(l.Log)
				w.seq = &seq
				w.body(1024)
				wg.Go(func() {
					for range b.N/appenders + min(n, b.N%appenders) {
						at, err := l.Append(w.draft.Size(), 1, w)
						for err != nil && l.WaitReady(context.Background()) == nil {
							at, err = l.Append(w.draft.Size(), 1, w)
						}
						if err := l.WaitFlushed(context.Background(), at+1); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkEncodeCRC is what the whole-record checksum property costs a record: its encoding with and without.
func BenchmarkEncodeCRC(b *testing.B) {
	for _, size := range []int{128, 1024} {
		for _, crc := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dB/crc-%t", size, crc), func(b *testing.B) {
				w := newWriter(nil)
				w.draft.AppendCRC = crc
				w.body(size)
				dst := make([]byte, w.draft.Size())
				b.ReportAllocs()
				for b.Loop() {
					w.draft.BodyCRC = message.BodyCRC(w.draft.Body)
					w.draft.Encode(dst, 1, 2, 3)
				}
			})
		}
	}
}

// BenchmarkRecovery reads 256 MiB of records of 1 KiB in the page cache, with and without the whole-record checksum.
func BenchmarkRecovery(b *testing.B) {
	for _, crc := range []bool{false, true} {
		b.Run(fmt.Sprintf("crc-%t", crc), func(b *testing.B) {
			const size = 256 << 20
			o := Options{FS: ioengine.OS(), Dir: b.TempDir(), SegmentSize: size}
			l := openLog(b, o, 0, false)
			w := newWriter(l.Log)
			w.draft.AppendCRC = crc
			for l.Published() < size-1<<20 {
				w.append(b, 1024)
			}
			closeLog(b, l.Log)
			b.SetBytes(size)
			for b.Loop() {
				l, rep, err := Open(o, 0, false, b.TempDir(), func([]byte, *message.Record) error { return nil })
				if err != nil || rep.Records != *w.seq {
					b.Fatal(rep, err)
				}
				closeLog(b, l)
			}
		})
	}
}
