//go:build !race

package broker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

// The race detector allocates for itself, so this file is not for it.

const (
	allocSlices  = 9
	allocsBound  = 0.01
	sliceOfSends = 256 // messages; for them a queue takes one chunk, which is two allocations
)

// allocsPerMessage is what the whole process, client and server and all their threads, allocates for a round trip over TCP. The client
// writes frames that are ready and throws the answers away out of one buffer: what is counted is the server's.
//
// It is counted in slices, and the one in the middle tells. What comes with messages is in every slice, and what comes with every fourth round
// in most of them; what is done once a second is in few, however slow the device makes the messages.
func allocsPerMessage(t *testing.T, b *testBroker, request []byte, depth int) float64 {
	t.Helper()
	c := b.raw()
	c.write(request)
	require.NotContains(t, []int32{remoting.RespSystemError, remoting.RespSubscriptionNotExist, remoting.RespInvalidParameter}, c.read().Code)
	all := bytes.Repeat(request, depth)
	buf := make([]byte, 1<<20)
	round := func() {
		if _, err := c.Write(all); err != nil {
			t.Fatal(err)
		}
		for range depth {
			if _, err := io.ReadFull(c, buf[:4]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, buf[:binary.BigEndian.Uint32(buf)]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 * sliceOfSends / depth {
		round()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty pools
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	var allocs [allocSlices]uint64
	for i := range allocs {
		before := stats.Mallocs
		for range sliceOfSends / depth {
			round()
		}
		runtime.ReadMemStats(&stats)
		allocs[i] = stats.Mallocs - before
	}
	slices.Sort(allocs[:])
	return float64(allocs[allocSlices/2]) / sliceOfSends
}

func TestHotPathAllocatesNothing(t *testing.T) {
	for _, flush := range []string{config.AsyncFlush, config.SyncFlush} {
		b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) {
			c.FlushDiskType = flush
			c.MappedFileSizeCommitLog, c.MappedFileSizeConsumeQueue, c.MaxHashSlotNum, c.MaxIndexNum = 64<<20, 6_000_000, 50_000, 200_000
		}})
		c := b.client()
		for _, topic := range []string{"S", "small", "mixed", "other", "large"} {
			c.createTopic(topic)
		}
		c.createGroup("G", nil)
		c.beat("me", "G", 1, map[string]string{"small": "a || b", "large": "*", "mixed": "*"})
		for range 32 {
			c.send("small", 0, strings.Repeat("x", 100), "properties", properties("TAGS", "a"))
			c.send("mixed", 0, strings.Repeat("x", 100))
			c.send("other", 0, strings.Repeat("x", 100))
		}
		c.send("large", 0, strings.Repeat("x", 50_000))
		props := properties("UNIQ_KEY", "7F0000012A0F18B4AAC20123456789AB", "TAGS", "a", "WAIT", "true", "own", "value")
		body := bytes.Repeat([]byte("b"), 128)
		online := []string{"sysFlag", "0", "subscription", absent}
		requests := map[string]struct {
			code   int32
			fields fields
			body   []byte
		}{
			"send 10":               {remoting.ReqSendMessage, toSend("S", 0, "properties", props), body},
			"send 310":              {remoting.ReqSendMessageV2, toSend("S", 1, "properties", props).short(), body},
			"send 310 without key":  {remoting.ReqSendMessageV2, toSend("S", 2, "properties", "").short(), body},
			"send 310 to any queue": {remoting.ReqSendMessageV2, toSend("S", -1, "properties", props).short(), body},
		}
		if flush == config.AsyncFlush {
			for name, f := range map[string]fields{
				"pull 32 that lie together": toPull("G", "small", 0, 0, online...),
				"pull 32 that lie apart":    toPull("G", "mixed", 0, 0, online...),
				"pull one":                  toPull("G", "small", 0, 31, online...),
				"pull with a subscription":  toPull("G", "small", 0, 0, "subscription", "a || c"),
				"pull by sendfile":          toPull("G", "large", 0, 0, online...),
				"pull at the end":           toPull("G", "small", 0, 32, online...),
				"pull filtered out":         toPull("G", "small", 0, 0, "subscription", "c"),
				"pull with a commit":        toPull("G", "small", 0, 0, "sysFlag", "1", "commitOffset", "3"),
			} {
				requests[name] = struct {
					code   int32
					fields fields
					body   []byte
				}{remoting.ReqPullMessage, f, nil}
			}
			requests["commit an offset"] = struct {
				code   int32
				fields fields
				body   []byte
			}{remoting.ReqUpdateConsumerOffset, ofQueue("small", 0, "consumerGroup", "G", "commitOffset", "5"), nil}
		}
		for name, r := range requests {
			for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
				for _, depth := range []int{1, 64} {
					if flush == config.SyncFlush && depth == 1 {
						continue // a sync for each takes too long for a test
					}
					t.Run(fmt.Sprintf("%s/%s/serialisation %d/%d in flight", flush, name, serialize, depth), func(t *testing.T) {
						request := frame(serialize, r.code, 1, 0, r.fields, r.body)
						// What is allocated for each message is allocated in every attempt; what the broker does besides is not.
						per := math.MaxFloat64
						for attempt := 0; attempt < 5 && per >= allocsBound; attempt++ {
							per = min(per, allocsPerMessage(t, b, request, depth))
						}
						t.Logf("%.4f allocations a message", per)
						require.Less(t, per, allocsBound)
					})
				}
			}
		}
	}
}
