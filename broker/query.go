package broker

import (
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Queries for single messages. Does the work of QueryMessageProcessor.

// Kinds of index entries (IndexType of the request).
const (
	indexKey  = 'K'
	indexUniq = 'U'
	indexTag  = 'T'
)

// queryMessage handles QUERY_MESSAGE: messages by key, by unique key or by tag. The client compares the keys themselves; the broker
// matches hashes, as the original does.
func queryMessage(r *request) *answer {
	topic, key := r.cmd.String("topic"), r.cmd.String("key")
	if topic == "" || key == "" {
		return failed(&remoting.FieldError{Key: "topic, key", Reason: "is null"})
	}
	most, err := r.cmd.Int("maxNum", 0)
	if err != nil {
		return failed(err)
	}
	begin, err := r.cmd.Int("beginTimestamp", 0)
	if err != nil {
		return failed(err)
	}
	end, err := r.cmd.Int("endTimestamp", 1<<63-1)
	if err != nil {
		return failed(err)
	}
	kind := byte(indexKey)
	if t := r.cmd.String("indexType"); t != "" {
		kind = t[0]
	}
	if r.cmd.Bool("_UNIQUE_KEY_QUERY", false) {
		kind, most = indexUniq, int64(r.b.cfg.Load().DefaultQueryMaxNum)
	}
	found, err := r.b.store.QueryByKey([]byte(topic), []byte(key), int(min(most, maxQuery)), begin, end, kind)
	if err != nil {
		return failed(err)
	}
	var body []byte
	for _, off := range found.Offsets {
		raw, err := r.b.store.Log().ReadRecord(off)
		if err != nil || len(body)+len(raw) > maxQueryBytes {
			continue
		}
		body = append(body, raw...)
	}
	a := &answer{body: body}
	if len(body) == 0 {
		a = refused(remoting.RespQueryNotFound, "can not find message, maybe time range not correct")
	}
	return a.with("indexLastUpdateTimestamp", found.LastUpdateTime).with("indexLastUpdatePhyoffset", found.LastUpdateOffset)
}

const (
	maxQuery      = 1024
	maxQueryBytes = 8 << 20
)

// viewMessage handles VIEW_MESSAGE_BY_ID: the record at a log offset.
func viewMessage(r *request) *answer {
	off, err := r.cmd.Int("offset", -1)
	if err != nil {
		return failed(err)
	}
	var rec message.Record
	raw, err := r.b.store.ReadMessage(off, &rec)
	if err != nil {
		return refused(remoting.RespSystemError, "can not find message by the offset, %d", off)
	}
	return &answer{body: raw}
}
