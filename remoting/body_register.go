package remoting

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// RegisterBrokerBody is what a broker sends with REGISTER_BROKER, in one of two forms:
//
//	plain:    the JSON of this struct
//	deflated: zlib of
//	          i32 n, DataVersion as JSON
//	          i32 topics, each i32 n, "name read write perm filterType {attributes}"
//	          i32 n, the filter servers as a JSON array
//	          i32 mappings, each i32 n, TopicQueueMappingInfo as JSON        (missing from brokers before 5.0)
//
// The deflated form loses order, topicSysFlag and the details of the mappings, as Java's does.
type RegisterBrokerBody struct {
	FilterServerList []string               `json:"filterServerList"`
	Topics           TopicConfigAndMappings `json:"topicConfigSerializeWrapper"`
}

// Encode writes the plain form.
func (b *RegisterBrokerBody) Encode() []byte { return EncodeBody(b) }

// Decode reads either form, the bare topic table of brokers before 3.0.11, and no body at all (a broker without topics). The header
// does not tell the forms apart: 5.5.0 brokers say compressed=false of a deflated body. A zlib stream begins with 0x78 and JSON never
// does.
func (b *RegisterBrokerBody) Decode(body []byte) error {
	*b = RegisterBrokerBody{}
	if len(body) == 0 {
		return nil
	}
	if body[0] == 0x78 {
		return b.decodeDeflated(body)
	}
	var both struct {
		FilterServerList []string                `json:"filterServerList"`
		Topics           *TopicConfigAndMappings `json:"topicConfigSerializeWrapper"`
		TopicConfigTable
	}
	if err := DecodeBody(body, &both); err != nil {
		return err
	}
	b.FilterServerList = both.FilterServerList
	if both.Topics != nil {
		b.Topics = *both.Topics
	} else {
		b.Topics.DataVersion = both.DataVersion
		b.Topics.TopicConfigTable = both.TopicConfigTable.TopicConfigTable
	}
	return nil
}

// EncodeDeflated writes the deflated form.
func (b *RegisterBrokerBody) EncodeDeflated() []byte {
	plain := appendBlock(nil, EncodeBody(b.Topics.DataVersion))
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(b.Topics.TopicConfigTable)))
	for _, name := range slices.Sorted(maps.Keys(b.Topics.TopicConfigTable)) {
		t := b.Topics.TopicConfigTable[name]
		plain = appendBlock(plain, t.appendLine(nil))
	}
	plain = appendBlock(plain, EncodeBody(b.FilterServerList))
	plain = binary.BigEndian.AppendUint32(plain, uint32(len(b.Topics.TopicQueueMappingInfoMap)))
	for _, name := range slices.Sorted(maps.Keys(b.Topics.TopicQueueMappingInfoMap)) {
		plain = appendBlock(plain, EncodeBody(b.Topics.TopicQueueMappingInfoMap[name]))
	}
	return deflate(plain)
}

func deflate(plain []byte) []byte {
	var out bytes.Buffer
	z, err := zlib.NewWriterLevel(&out, zlib.BestCompression)
	if err == nil {
		_, err = z.Write(plain)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic("BUG: deflate into memory: " + err.Error())
	}
	return out.Bytes()
}

func appendBlock(dst, block []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(block)))
	return append(dst, block...)
}

var errRegisterBody = errors.New("deflated registration: a length goes past the end")

func (b *RegisterBrokerBody) decodeDeflated(body []byte) error {
	plain, err := inflate(body, maxBodySize)
	if err != nil {
		return fmt.Errorf("deflated registration: %w", err)
	}
	return b.decodeBlocks(blockReader{plain})
}

func (b *RegisterBrokerBody) decodeBlocks(r blockReader) error {
	version, err := r.block()
	if err != nil {
		return err
	}
	if err := DecodeBody(version, &b.Topics.DataVersion); err != nil {
		return err
	}
	if err := b.decodeTopics(&r); err != nil {
		return err
	}
	filters, err := r.block()
	if err != nil {
		return err
	}
	// Java only complains in its log about filter servers that it cannot read; there have been none since 4.3.
	if DecodeBody(filters, &b.FilterServerList) != nil {
		b.FilterServerList = nil
	}
	return b.decodeMappings(&r)
}

func (b *RegisterBrokerBody) decodeTopics(r *blockReader) error {
	n, err := r.count()
	if err != nil {
		return err
	}
	b.Topics.TopicConfigTable = make(map[string]TopicConfig)
	for range n {
		line, err := r.block()
		if err != nil {
			return err
		}
		t := NewTopicConfig("")
		if err := t.parseLine(string(line)); err != nil {
			return err
		}
		b.Topics.TopicConfigTable[t.TopicName] = t
	}
	return nil
}

func (b *RegisterBrokerBody) decodeMappings(r *blockReader) error {
	if len(r.rest) == 0 {
		return nil
	}
	n, err := r.count()
	if err != nil {
		return err
	}
	b.Topics.TopicQueueMappingInfoMap = make(map[string]TopicQueueMappingInfo)
	for range n {
		text, err := r.block()
		if err != nil {
			return err
		}
		var m TopicQueueMappingInfo
		if err := DecodeBody(text, &m); err != nil {
			return err
		}
		b.Topics.TopicQueueMappingInfoMap[m.Topic] = m
	}
	return nil
}

// inflate unpacks a zlib stream of at most limit bytes; a longer one is an error. Memory grows with what comes out, not with what the
// stream claims.
func inflate(body []byte, limit int) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(z, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(plain) > limit {
		return nil, fmt.Errorf("more than %d bytes when inflated", limit)
	}
	return plain, nil
}

// blockReader cuts counts and blocks off rest.
type blockReader struct{ rest []byte }

// count reads a number of blocks that follow. Each takes at least its four bytes of length.
func (r *blockReader) count() (int, error) {
	if len(r.rest) < 4 {
		return 0, errRegisterBody
	}
	n := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	if uint64(n) > uint64(len(r.rest))/4 {
		return 0, errRegisterBody
	}
	return int(n), nil
}

func (r *blockReader) block() ([]byte, error) {
	if len(r.rest) < 4 {
		return nil, errRegisterBody
	}
	n := binary.BigEndian.Uint32(r.rest)
	if uint64(n) > uint64(len(r.rest)-4) {
		return nil, errRegisterBody
	}
	block := r.rest[4 : 4+n]
	r.rest = r.rest[4+n:]
	return block, nil
}

// appendLine writes a topic in the one-line form: name read write perm filterType {attributes}.
func (t *TopicConfig) appendLine(dst []byte) []byte {
	dst = append(dst, t.TopicName...)
	for _, n := range []int32{t.ReadQueueNums, t.WriteQueueNums, t.Perm} {
		dst = strconv.AppendInt(append(dst, ' '), int64(n), 10)
	}
	dst = append(append(dst, ' '), t.TopicFilterType...)
	dst = append(dst, ' ')
	return append(dst, EncodeBody(t.Attributes)...)
}

func (t *TopicConfig) parseLine(line string) error {
	words := strings.SplitN(line, " ", 6)
	if len(words) < 5 {
		return fmt.Errorf("topic line %.100q: want name, read, write, perm and filter type", line)
	}
	t.TopicName, t.TopicFilterType = words[0], words[4]
	for i, n := range []*int32{&t.ReadQueueNums, &t.WriteQueueNums, &t.Perm} {
		v, err := strconv.ParseInt(words[1+i], 10, 32)
		if err != nil {
			return fmt.Errorf("topic line %.100q: %w", line, err)
		}
		*n = int32(v)
	}
	if len(words) == 6 {
		// Attributes that cannot be read are dropped, as Java does: the topic's queues matter more.
		standard, err := StandardJSON(nil, []byte(words[5]))
		if err != nil || json.Unmarshal(standard, &t.Attributes) != nil {
			t.Attributes = nil
		}
	}
	return nil
}
