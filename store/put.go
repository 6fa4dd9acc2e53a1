package store

import (
	"encoding/binary"
	"errors"

	"github.com/ringmq/ringmq/message"
)

// In the walk of one message: before this, broker/send.go made the Draft; after this, commitlog/append.go reserves its place and calls
// EncodeAt.

// Put is the scratch of one appender (a reactor, or a goroutine): what is to be stored, and afterwards where it is. It is used
// again and again and takes no memory for a message.
type Put struct {
	// Draft is the message. For a batch: what its messages have in common.
	Draft message.Draft
	// Hot is what message.ScanHot says of the message's properties, those that are added included, where the caller knows; nil else. Append forgets
	// it. Into a batch the store looks itself.
	Hot *message.Hot
	// QueueOffset is the first offset given, PhysicalOffset the place of the first record, End the log offset behind the last,
	// StoreTimestamp the ms written into it.
	QueueOffset, PhysicalOffset, End, StoreTimestamp int64

	queue *ConsumeQueue
	// void: the queue was deleted before the record got its place, so the record counts for nothing and is stored again.
	void  bool
	batch []batchMessage
	// note is that of a single message, if noted; notes is where it goes.
	note  note
	noted bool
	notes *noteList[note]
	// offsets are the physical offsets of a batch's records, for its message ids.
	offsets []int64
}

// batchMessage is what one message of a batch has for itself. The slices are views into the batch's body.
type batchMessage struct {
	body, properties []byte
	bodyCRC          uint32
	flag             int32
	note             note
	noted            bool
}

// Append stores p.Draft as the next message of q. now is in ms. The errors are those of commitlog.Log.Append.
func (s *Store) Append(p *Put, q *ConsumeQueue, now int64) error {
	p.ClearBatch()
	s.prepare(&p.Draft)
	p.Draft.BodyCRC = message.BodyCRC(p.Draft.Body)
	p.noted = false
	if p.Hot != nil {
		p.note, p.noted = s.noteOf(p.Draft.Topic, p.Draft.SysFlag, p.Hot)
		p.Hot = nil
	}
	return s.append(p, q, now, p.Draft.Size())
}

// prepare sets what the store adds to a message. It decides the size.
func (s *Store) prepare(d *message.Draft) {
	d.StoreHost = s.opt.StoreHost
	d.AppendCRC = s.opt.AppendCRC
}

// append takes the queue of that name which is there now where the topic was deleted since the caller looked q up.
func (s *Store) append(p *Put, q *ConsumeQueue, now int64, size int) error {
	p.Draft.QueueID, p.notes = q.QueueID, &s.dispatch.notes
	sysFlag := p.Draft.SysFlag
	for {
		if q.deleted() {
			var err error
			if q, err = s.queues.GetOrCreate(q.Topic, q.QueueID); err != nil {
				return err
			}
		}
		p.queue = q
		at, err := s.log.Append(size, now, p)
		switch {
		case err != nil:
			return err
		case !p.void:
			p.PhysicalOffset, p.End = at, at+int64(size)
			return nil
		}
		p.Draft.SysFlag = sysFlag
	}
}

// EncodeAt gives out the queue offset and writes the record: the tail is held, so queue offsets follow the order of the log.
//
// What it finds under the tail is what dispatchPublished relies on: a queue that is not deleted here has its begin set before the record is
// published. A place that was reserved for a deleted queue cannot be given back, so a message that was rolled back fills it: no queue
// takes that in, now or after a start, here or in a Java broker.
func (p *Put) EncodeAt(dst []byte, physicalOffset, storeTimestamp int64) {
	p.void = p.queue.deleted()
	switch {
	case p.void:
		p.Draft.SysFlag |= message.SysTransactionRollback
	case p.queue.begin.Load() == notBegun:
		p.queue.begin.Store(physicalOffset)
	}
	p.StoreTimestamp = storeTimestamp
	p.QueueOffset = p.queue.Next
	if len(p.batch) == 0 {
		p.queue.Next++
		p.Draft.Encode(dst, p.QueueOffset, physicalOffset, storeTimestamp)
		if p.noted {
			p.leaveNote(&p.note, p.QueueOffset, physicalOffset, len(dst))
		}
		return
	}
	p.offsets = p.offsets[:0]
	at := 0
	for i := range p.batch {
		p.offsets = append(p.offsets, physicalOffset+int64(at))
		n := p.draftOf(i).Encode(dst[at:], p.QueueOffset+int64(i), physicalOffset+int64(at), storeTimestamp)
		if m := &p.batch[i]; m.noted {
			p.leaveNote(&m.note, p.QueueOffset+int64(i), physicalOffset+int64(at), n)
		}
		at += n
	}
	p.queue.Next += int64(len(p.batch))
}

// leaveNote leaves n to dispatch, with the record's place in queue and log.
func (p *Put) leaveNote(n *note, offset, physicalOffset int64, size int) {
	if p.void {
		return
	}
	if to := p.notes.room(); to != nil {
		*to = *n
		to.queue, to.offset = p.queue, offset
		to.index.at, to.index.size, to.index.storeTime = physicalOffset, int32(size), p.StoreTimestamp
		p.notes.added()
	}
}

// draftOf fills the shared draft with what message i has for itself.
func (p *Put) draftOf(i int) *message.Draft {
	m := &p.batch[i]
	p.Draft.Body, p.Draft.BodyCRC, p.Draft.Properties, p.Draft.Flag = m.body, m.bodyCRC, m.properties, m.flag
	return &p.Draft
}

// ErrBatch is a batch body whose lengths do not add up.
var ErrBatch = errors.New("the batch's body is not a sequence of messages: a length does not add up")

// maxKeptBatch bounds the scratch that a large batch leaves behind.
const maxKeptBatch = 4096

// AppendBatch stores the messages of the batch body in p.Draft.Body as consecutive messages of q, in one piece. Each message of the
// body is `i32 size | i32 magic | i32 crc | i32 flag | i32 n, body | i16 n, properties`; size, magic and crc are not looked at, as in the
// original.
func (s *Store) AppendBatch(p *Put, q *ConsumeQueue, now int64) error {
	if cap(p.batch) > maxKeptBatch {
		p.batch, p.offsets = nil, nil
	}
	// The draft is given back as it came: an append that was refused for the moment is tried again with it.
	whole := p.Draft
	defer func() {
		p.Draft.Body, p.Draft.BodyCRC, p.Draft.Properties, p.Draft.Flag, p.Draft.Extra = whole.Body, whole.BodyCRC, whole.Properties, whole.Flag, whole.Extra
	}()
	body := p.Draft.Body
	p.batch = p.batch[:0]
	p.Draft.Extra = nil
	for len(body) > 0 {
		m, rest, ok := nextBatchMessage(body)
		if !ok {
			return ErrBatch
		}
		hot := message.ScanHot(m.properties)
		m.note, m.noted = s.noteOf(p.Draft.Topic, p.Draft.SysFlag, &hot)
		p.batch = append(p.batch, m)
		body = rest
	}
	if len(p.batch) == 0 {
		return ErrBatch
	}
	s.prepare(&p.Draft)
	size := 0
	for i := range p.batch {
		d := p.draftOf(i)
		// The broker has held the whole batch against its limit of the moment.
		if err := d.Check(len(d.Body)); err != nil {
			return err
		}
		size += d.Size()
	}
	return s.append(p, q, now, size)
}

func nextBatchMessage(b []byte) (m batchMessage, rest []byte, ok bool) {
	const head = 20
	if len(b) < head+2 {
		return m, nil, false
	}
	m.flag = int32(binary.BigEndian.Uint32(b[12:]))
	bodyLen := int64(int32(binary.BigEndian.Uint32(b[16:])))
	b = b[head:]
	if bodyLen < 0 || bodyLen > int64(len(b)-2) {
		return m, nil, false
	}
	m.body, b = b[:bodyLen], b[bodyLen:]
	m.bodyCRC = message.BodyCRC(m.body)
	propLen := int(int16(binary.BigEndian.Uint16(b)))
	b = b[2:]
	if propLen < 0 || propLen > len(b) {
		return m, nil, false
	}
	m.properties = b[:propLen]
	return m, b[propLen:], true
}

// BatchOffsets are the physical offsets of the records of the last AppendBatch, valid until the next.
func (p *Put) BatchOffsets() []int64 { return p.offsets }

// ClearBatch makes p that of a single message again.
func (p *Put) ClearBatch() { p.batch, p.offsets = p.batch[:0], p.offsets[:0] }
