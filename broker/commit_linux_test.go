package broker

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// With ioEngine=uring each reactor carries out group commits itself: nobody is answered before the device has his message, whichever reactor
// it was that took notice, and everybody is answered.
func TestReactorsCommitThemselves(t *testing.T) {
	const clients, each = 9, 60
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) {
		c.IoEngine, c.FlushDiskType, c.Reactors, c.LogTailBytes = "uring", config.SyncFlush, 3, 32<<20
	}})
	if b.store.Log().Engine() != ioengine.EngineUring {
		t.Skip("io_uring or O_DIRECT is refused here")
	}
	for _, h := range b.allHandlers() {
		require.NotNil(t, h.committer)
	}
	b.client().createTopic("T")
	var sending sync.WaitGroup
	errs := make(chan error, clients*each)
	for i := range clients {
		c := b.client()
		sending.Go(func() {
			for n := range each {
				if err := sendAndLook(b, c, i%4); err != nil {
					errs <- fmt.Errorf("message %d of client %d: %w", n, i, err)
				}
			}
		})
	}
	sending.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	total := int64(0)
	for i := range 4 {
		total += b.store.Queue([]byte("T"), int32(i)).Max()
	}
	require.EqualValues(t, clients*each, total)
}

// sendAndLook sends a message and looks whether it is on the device when the answer comes.
func sendAndLook(b *testBroker, c *testClient, queueID int) error {
	r, err := c.Invoke(context.Background(), client.Request{Code: remoting.ReqSendMessageV2, Fields: toSend("T", queueID).short(), Body: []byte("x")})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return err
	}
	_, at, err := message.ParseOffsetID(r.Fields["msgId"])
	if flushed := b.store.Log().Flushed(); err == nil && at >= flushed {
		err = fmt.Errorf("the record at %d was acknowledged with %d flushed", at, flushed)
	}
	return err
}
