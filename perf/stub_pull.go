package perf

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// StubFill says what a stub has to give out: Count records of Size bytes in each queue of a topic, written to File beforehand.
type StubFill struct {
	File   string
	Topic  string
	Queues int
	Count  int
	Size   int
}

// stubRecords is a file of records of equal size, queue after queue.
type stubRecords struct {
	file  *os.File
	size  int64 // of one record
	count int64 // in each queue
}

// stubRange is a part of the file that goes out behind a number of bytes of stubConn.out.
type stubRange struct {
	behind int
	file   *os.File
	offset int64
	size   int
}

// stubMaxFill keeps a slip of the finger from filling the disk.
const stubMaxFill = 64 << 30

// fill writes the records and has pulls of that topic answered from them.
func (s *Stub) fill(f StubFill) error {
	if f.Queues < 1 || f.Queues > stubMaxQueues || f.Count < 1 || f.Size < MinSize || int64(f.Queues)*int64(f.Count)*int64(f.Size) > stubMaxFill {
		return fmt.Errorf("stub: cannot hold %d queues of %d records of %d bytes", f.Queues, f.Count, f.Size)
	}
	file, err := os.Create(f.File)
	if err != nil {
		return fmt.Errorf("stub: %w", err)
	}
	records, err := fillRecords(file, f)
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("stub: %w", err)
	}
	t := &stubTopic{full: records}
	for range f.Queues {
		t.next = append(t.next, records.count)
	}
	s.topics[f.Topic] = t
	return nil
}

func fillRecords(file *os.File, f StubFill) (*stubRecords, error) {
	out := bufio.NewWriterSize(file, 1<<20)
	body := filler(f.Size)
	config := &Config{}
	host := message.HostOf(netip.MustParseAddrPort("127.0.0.1:1"))
	now := time.Now()
	d := message.Draft{Topic: []byte(f.Topic), Body: body, Properties: properties(config), BornTimestamp: now.UnixMilli(), BornHost: host, StoreHost: host}
	record := make([]byte, d.Size())
	for queue := range f.Queues {
		for i := range f.Count {
			(&stamp{queue: uint32(queue), sequence: uint64(i), settled: uint64(i), time: now.UnixNano()}).put(body)
			d.QueueID, d.BodyCRC = int32(queue), message.BodyCRC(body)
			d.Encode(record, int64(i), int64(queue*f.Count+i)*int64(len(record)), now.UnixMilli())
			if _, err := out.Write(record); err != nil {
				return nil, err
			}
		}
	}
	return &stubRecords{file: file, size: int64(len(record)), count: int64(f.Count)}, out.Flush()
}

// answerPull answers with as many records as were asked for, without a wait.
func (s *Stub) answerPull(c *stubConn) {
	h := &s.pull
	if err := h.Decode(&c.command); err != nil {
		c.answer(remoting.RespInvalidParameter, err.Error(), nil)
		return
	}
	t := s.topics[string(h.Topic)]
	if t == nil || t.full == nil || h.QueueID < 0 || int(h.QueueID) >= len(t.next) {
		c.answer(remoting.RespTopicNotExist, "the stub holds no such records: see its --fill", nil)
		return
	}
	r := t.full
	n := min(int64(h.MaxMsgNums), r.count-h.QueueOffset)
	if h.QueueOffset < 0 || n <= 0 {
		w := remoting.Respond(c.out, &c.command, remoting.RespPullNotFound, "")
		w.Int("nextBeginOffset", max(0, min(h.QueueOffset, r.count)))
		c.out = w.Finish(nil)
		return
	}
	w := remoting.Respond(c.out, &c.command, remoting.RespSuccess, "")
	w.Int("suggestWhichBrokerId", 0)
	w.Int("nextBeginOffset", h.QueueOffset+n)
	w.Int("minOffset", 0)
	w.Int("maxOffset", r.count)
	c.out = w.FinishHead(int(n * r.size))
	c.ranges = append(c.ranges, stubRange{
		behind: len(c.out), file: r.file, offset: (int64(h.QueueID)*r.count + h.QueueOffset) * r.size, size: int(n * r.size),
	})
}
