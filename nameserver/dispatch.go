package nameserver

import (
	"fmt"

	"github.com/ringmq/ringmq/remoting"
)

// lane is where a request runs.
type lane uint8

const (
	inline  lane = iota // on the reactor: looks something up, never waits
	ordered             // one goroutine: changes the tables, in the order of arrival
	slow                // a few goroutines: long answers, and what waits for a disk
)

// resource and action are what access control will ask for, which is not enforced yet. They are the words of RocketMQ's ACL 2.0.
type (
	resource string
	action   string
)

const (
	onCluster resource = "Cluster"
	onTopic   resource = "Topic" // of field "topic"; a retry topic stands for its group

	get    action = "Get"
	list   action = "List"
	update action = "Update"
	pub    action = "Pub"
	sub    action = "Sub"
)

// endpoint is one row of the dispatch table.
type endpoint struct {
	handle   func(s *Server, r *request) reply
	lane     lane
	resource resource
	actions  []action // any one of them suffices
}

// endpoints is the dispatch table: request code → who answers it, where, and who may ask. Does the work of DefaultRequestProcessor and
// ClientRequestProcessor. Every other code is answered with REQUEST_CODE_NOT_SUPPORTED.
var endpoints = map[int32]endpoint{
	remoting.ReqGetRouteinfoByTopic: {getRoute, inline, onTopic, []action{pub, sub, get}},

	remoting.ReqRegisterBroker:           {registerBroker, ordered, onCluster, []action{update}},
	remoting.ReqUnregisterBroker:         {unregisterBroker, ordered, onCluster, []action{update}},
	remoting.ReqBrokerHeartbeat:          {brokerHeartbeat, inline, onCluster, []action{update}},
	remoting.ReqQueryDataVersion:         {queryDataVersion, inline, onCluster, []action{get}},
	remoting.ReqGetBrokerMemberGroup:     {getMemberGroup, inline, onCluster, []action{get}},
	remoting.ReqGetBrokerClusterInfo:     {getClusterInfo, slow, onCluster, []action{get}},
	remoting.ReqWipeWritePermOfBroker:    {wipeWritePerm, ordered, onCluster, []action{update}},
	remoting.ReqAddWritePermOfBroker:     {addWritePerm, ordered, onCluster, []action{update}},
	remoting.ReqRegisterTopicInNamesrv:   {registerTopic, ordered, onCluster, []action{update}},
	remoting.ReqDeleteTopicInNamesrv:     {deleteTopic, ordered, onCluster, []action{update}},
	remoting.ReqGetSystemTopicListFromNS: {getSystemTopics, slow, onTopic, []action{list}},

	remoting.ReqGetAllTopicListFromNameserver: {getAllTopics, slow, onTopic, []action{list}},
	remoting.ReqGetTopicsByCluster:            {getClusterTopics, slow, onTopic, []action{list}},
	remoting.ReqGetUnitTopicList:              {getUnitTopics, slow, onTopic, []action{list}},
	remoting.ReqGetHasUnitSubTopicList:        {getUnitSubTopics, slow, onTopic, []action{list}},
	remoting.ReqGetHasUnitSubUnunitTopicList:  {getUnitSubUnunitTopics, slow, onTopic, []action{list}},

	remoting.ReqPutKVConfig:          {putKV, slow, onCluster, []action{update}},
	remoting.ReqGetKVConfig:          {getKV, inline, onCluster, []action{get}},
	remoting.ReqDeleteKVConfig:       {deleteKV, slow, onCluster, []action{update}},
	remoting.ReqGetKvlistByNamespace: {listKV, slow, onCluster, []action{get}},

	remoting.ReqUpdateNamesrvConfig: {updateConfig, slow, onCluster, []action{update}},
	remoting.ReqGetNamesrvConfig:    {getConfig, slow, onCluster, []action{get}},
}

// request is what a handler gets. It is valid until the handler returns.
type request struct {
	*remoting.Command
	peer *peer
}

// text is a field that must be there.
func (r *request) text(key string) (string, error) {
	v, ok := r.Value(key)
	if !ok {
		return "", &remoting.FieldError{Key: key, Reason: "is null"}
	}
	return string(v), nil
}

// name is a field that must be there and becomes a key of the tables.
func (r *request) name(key string) (string, error) {
	v, err := r.text(key)
	if err == nil && (v == "" || len(v) > maxName) {
		err = &remoting.FieldError{Key: key, Reason: fmt.Sprintf("has %d bytes: want 1 to %d", len(v), maxName)}
	}
	return v, err
}

// number is a field that must be there and be a number.
func (r *request) number(key string) (int64, error) {
	if _, ok := r.Value(key); !ok {
		return 0, &remoting.FieldError{Key: key, Reason: "is null"}
	}
	return r.Int(key, 0)
}

// reply is what a handler answers. The zero value is success without a body.
type reply struct {
	code   int32
	remark string
	fields [2]field
	body   []byte
}

// field is an extension field of an answer; one without key is not written.
type field struct{ key, value string }

// failed answers SYSTEM_ERROR with the text of err: it is how every error of a handler becomes an answer.
func failed(err error) reply { return reply{code: remoting.RespSystemError, remark: err.Error()} }

// handleRequest answers one request on the goroutine it should run on.
func (s *Server) handleRequest(r *request) reply {
	e, ok := endpoints[r.Code]
	if !ok {
		return unsupported(r.Code)
	}
	return e.handle(s, r)
}

func unsupported(code int32) reply {
	return reply{code: remoting.RespRequestCodeNotSupported, remark: fmt.Sprintf(" request type %d not supported", code)}
}

// maxBody is what fits in a frame with room for a header. A longer answer would make the client close the connection.
const maxBody = 16<<20 - 64<<10

// appendTo writes the answer to request.
func (a *reply) appendTo(dst []byte, request *remoting.Command) []byte {
	if len(a.body) > maxBody {
		*a = failed(fmt.Errorf("the answer of %d bytes does not fit in a frame of 16 MiB: ask for less", len(a.body)))
	}
	w := remoting.Respond(dst, request, a.code, a.remark)
	for _, f := range a.fields {
		if f.key != "" {
			w.Text(f.key, f.value)
		}
	}
	return w.Finish(a.body)
}
