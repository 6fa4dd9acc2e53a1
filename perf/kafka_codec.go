package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Requests of Kafka that we make, each in the oldest version that Kafka 4 serves without compact fields.
const (
	kafkaProduce, kafkaProduceVersion           = 0, 3
	kafkaFetch, kafkaFetchVersion               = 1, 4
	kafkaListOffsets, kafkaListOffsetsVersion   = 2, 1
	kafkaMetadata, kafkaMetadataVersion         = 3, 4
	kafkaCreateTopics, kafkaCreateTopicsVersion = 19, 2
)

// kafkaRequest begins a request: length (filled in by kafkaFinish), key, version, correlation id, client id.
func kafkaRequest(dst []byte, key, version int16, correlation int32) []byte {
	be := binary.BigEndian
	dst = be.AppendUint32(dst, 0)
	dst = be.AppendUint16(dst, uint16(key))
	dst = be.AppendUint16(dst, uint16(version))
	dst = be.AppendUint32(dst, uint32(correlation))
	return kafkaString(dst, Group)
}

func kafkaFinish(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

func kafkaString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// A record batch, magic 2: positions of its fields. What the checksum covers begins with the attributes.
//
//	| at | field            | at | field           | at | field              |
//	|----|------------------|----|-----------------|----|--------------------|
//	| 0  | base offset      | 17 | CRC-32C         | 43 | producer id        |
//	| 8  | length behind it | 21 | attributes      | 51 | producer epoch     |
//	| 12 | leader epoch     | 23 | last delta      | 53 | base sequence      |
//	| 16 | magic            | 27 | base, max time  | 57 | count, then records|
const (
	batchLengthAt, batchEpochAt, batchMagicAt, batchCRCAt = 8, 12, 16, 17
	batchAttributesAt, batchLastAt, batchTimesAt          = 21, 23, 27
	batchProducerAt, batchCountAt, batchHeadSize          = 43, 57, 61
	batchCompression, batchControl                        = 7, 1 << 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// kafkaBatch encodes count records with the same body, and tells where their bodies begin.
func kafkaBatch(body []byte, count int) (batch []byte, bodies []int) {
	b := make([]byte, batchHeadSize)
	for i := range count {
		delta := binary.AppendVarint(nil, int64(i))
		length := 2 + len(delta) + 1 + len(binary.AppendVarint(nil, int64(len(body)))) + len(body) + 1
		b = binary.AppendVarint(b, int64(length))
		b = append(b, 0, 0) // attributes, time delta
		b = append(b, delta...)
		b = binary.AppendVarint(b, -1) // no key
		b = binary.AppendVarint(b, int64(len(body)))
		bodies = append(bodies, len(b))
		b = append(b, body...)
		b = append(b, 0) // no headers
	}
	be := binary.BigEndian
	be.PutUint32(b[batchLengthAt:], uint32(len(b)-batchEpochAt))
	be.PutUint32(b[batchEpochAt:], ^uint32(0))
	b[batchMagicAt] = 2
	be.PutUint32(b[batchLastAt:], uint32(count-1))
	for at := batchProducerAt; at < batchCountAt; at++ {
		b[at] = 0xff
	}
	be.PutUint32(b[batchCountAt:], uint32(count))
	return b, bodies
}

// stampBatch writes time and checksum.
func stampBatch(b []byte, millis int64) {
	be := binary.BigEndian
	be.PutUint64(b[batchTimesAt:], uint64(millis))
	be.PutUint64(b[batchTimesAt+8:], uint64(millis))
	be.PutUint32(b[batchCRCAt:], crc32.Checksum(b[batchAttributesAt:], castagnoli))
}

var errKafkaShort = errors.New("kafka: an answer ends too early")

// kafkaReader reads fields off an answer. After the first that is not there all are zero, and err tells.
type kafkaReader struct {
	b   []byte
	err error
}

func (r *kafkaReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.err, r.b = errKafkaShort, nil
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *kafkaReader) int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (r *kafkaReader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *kafkaReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *kafkaReader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// string reads a string that may be null.
func (r *kafkaReader) string() []byte {
	if n := r.int16(); n > 0 {
		return r.take(int(n))
	}
	return nil
}

// bytes reads bytes that may be null.
func (r *kafkaReader) bytes() []byte {
	if n := r.int32(); n > 0 {
		return r.take(int(n))
	}
	return nil
}

// count reads the number of elements of an array that may be null; each takes a byte at the least.
func (r *kafkaReader) count() int {
	n := int(r.int32())
	if n > len(r.b) {
		r.err, r.b = errKafkaShort, nil
		return 0
	}
	return max(n, 0)
}

// only reads the length of an array that has one element in an answer to what we ask for.
func (r *kafkaReader) only() {
	if n := r.count(); n != 1 && r.err == nil {
		r.err = fmt.Errorf("kafka: an answer about %d topics or partitions, not one", n)
	}
}

// kafkaBatches walks through the records of an answer.
type kafkaBatches struct {
	left int   // records left of the batch in hand
	base int64 // its base offset
}

// next reads one record. What is cut off at the end, as Kafka may do, and what is no message give offset -1.
func (w *kafkaBatches) next(b []byte, m *received) (rest []byte, err error) {
	be := binary.BigEndian
	*m = received{offset: -1, queueID: -1, early: true}
	if w.left == 0 {
		if len(b) < batchHeadSize || len(b) < batchEpochAt+int(be.Uint32(b[batchLengthAt:])) {
			return nil, nil
		}
		length := int(be.Uint32(b[batchLengthAt:]))
		switch attributes := be.Uint16(b[batchAttributesAt:]); {
		case b[batchMagicAt] != 2 || length < batchHeadSize-batchEpochAt:
			return nil, fmt.Errorf("kafka: a record batch of format %d and %d bytes", b[batchMagicAt], length)
		case attributes&batchCompression != 0:
			return nil, errors.New("kafka: a compressed record batch, which we have not sent")
		case attributes&batchControl != 0:
			return b[batchEpochAt+length:], nil
		}
		w.base, w.left = int64(be.Uint64(b)), int(be.Uint32(b[batchCountAt:]))
		return b[batchHeadSize:], nil
	}
	r := kafkaReader{b: b}
	size := r.varint()
	record := kafkaReader{b: r.take(size)}
	record.take(1) // attributes
	record.varint()
	delta := record.varint()
	record.take(max(record.varint(), 0)) // key
	m.body = record.take(record.varint())
	if err := errors.Join(r.err, record.err); err != nil {
		w.left = 0
		return nil, err
	}
	w.left--
	m.offset = w.base + int64(delta)
	return r.b, nil
}

func (r *kafkaReader) varint() int {
	n, size := binary.Varint(r.b)
	if size <= 0 || n < -1 || n > maxFrame {
		r.err, r.b = errKafkaShort, nil
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}
