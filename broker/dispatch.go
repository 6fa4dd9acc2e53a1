package broker

import (
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// In the walk of one message: before this, remoting/command.go read the header; after this, send.go or pull.go checks the request.

// laneID says which goroutines run a request that may wait.
type laneID int

const (
	laneControl laneID = iota // clients, topics, groups: short, but they may wait for a save
	laneCold                  // pulls and queries that read the disk
	laneAdmin                 // tools
	laneCount
)

// Places for requests that wait for a goroutine of a lane.
const (
	coldPlaces = 10_000
	putPlaces  = 10_000
)

// route is one row of the dispatch table.
type route struct {
	code int32
	// hot runs on the reactor and never waits; or slow runs on a lane.
	hot  func(h *handler, c *netpath.Conn)
	slow func(r *request) *answer
	lane laneID
	// resource and action are what access control will ask for: see DefaultAuthorizationContextBuilder.
	resource, action string

	run func(c *netpath.Conn, frame []byte)
}

// routeTable is every request that this broker serves. A test holds it, and unsupportedCodes, against RocketMQ's codes.
func routeTable() []route {
	return []route{
		{code: remoting.ReqSendMessage, hot: (*handler).onSend, resource: "Topic", action: "Pub"},
		{code: remoting.ReqSendMessageV2, hot: (*handler).onSend, resource: "Topic", action: "Pub"},
		{code: remoting.ReqSendBatchMessage, hot: (*handler).onSend, resource: "Topic", action: "Pub"},
		{code: remoting.ReqConsumerSendMsgBack, slow: sendBack, lane: laneCold, resource: "Group", action: "Sub"},
		{code: remoting.ReqPullMessage, hot: (*handler).onPull, resource: "Topic,Group", action: "Sub"},
		{code: remoting.ReqLitePullMessage, hot: (*handler).onPull, resource: "Topic,Group", action: "Sub"},
		{code: remoting.ReqQueryMessage, slow: queryMessage, lane: laneCold, resource: "Topic", action: "Sub,Get"},
		{code: remoting.ReqViewMessageByID, slow: viewMessage, lane: laneCold, resource: "Topic", action: "Sub,Get"},

		{code: remoting.ReqUpdateConsumerOffset, hot: (*handler).onUpdateOffset, resource: "Topic,Group", action: "Sub,Update"},
		{code: remoting.ReqQueryConsumerOffset, hot: (*handler).onQueryOffset, resource: "Topic,Group", action: "Sub,Get"},
		{code: remoting.ReqGetMaxOffset, hot: (*handler).onMaxOffset, resource: "Topic", action: "Sub,Get"},
		{code: remoting.ReqGetMinOffset, hot: (*handler).onMinOffset, resource: "Topic", action: "Sub,Get"},
		{code: remoting.ReqSearchOffsetByTimestamp, slow: searchOffset, lane: laneCold, resource: "Topic", action: "Sub,Get"},
		{code: remoting.ReqGetEarliestMsgStoretime, slow: earliestStoreTime, lane: laneCold, resource: "Topic", action: "Sub,Get"},

		{code: remoting.ReqHeartBeat, slow: heartbeat, resource: "Topic,Group", action: "Sub"},
		{code: remoting.ReqUnregisterClient, slow: unregisterClient, resource: "Group", action: "Sub"},
		{code: remoting.ReqCheckClientConfig, slow: checkClient, resource: "Topic,Group", action: "Sub"},
		{code: remoting.ReqGetConsumerListByGroup, slow: consumerList, resource: "Group", action: "Sub,Get"},
		{code: remoting.ReqLockBatchMQ, slow: lockBatch, resource: "Topic,Group", action: "Sub"},
		{code: remoting.ReqUnlockBatchMQ, slow: unlockBatch, resource: "Topic,Group", action: "Sub"},
	}
}

// routes finds the row of a request code: small codes by an array, the others by a map.
type routes struct {
	small [1024]*route
	other map[int32]*route
}

func newRoutes(b *Broker, tables ...[]route) *routes {
	rs := &routes{other: map[int32]*route{}}
	for _, table := range tables {
		for i := range table {
			rt := &table[i]
			if rt.slow != nil {
				slow := rt.slow
				rt.run = func(c *netpath.Conn, frame []byte) { b.runSlow(c, frame, slow) }
			}
			if uint32(rt.code) < uint32(len(rs.small)) {
				rs.small[rt.code] = rt
			} else {
				rs.other[rt.code] = rt
			}
		}
	}
	return rs
}

func (rs *routes) find(code int32) *route {
	if uint32(code) < uint32(len(rs.small)) {
		return rs.small[code]
	}
	return rs.other[code]
}

// runSlow runs a request on a lane's goroutine.
func (b *Broker) runSlow(c *netpath.Conn, frame []byte, slow func(*request) *answer) {
	r := request{conn: c, b: b}
	if err := r.cmd.Decode(frame); err != nil {
		c.Close(err)
		return
	}
	b.answer(c, &r.cmd, slow(&r))
}
