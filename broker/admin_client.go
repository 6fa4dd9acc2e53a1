package broker

import (
	"context"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

// clientCallTimeout is how long a client may take to answer a request that the broker passes on.
const clientCallTimeout = 10 * time.Second

// consumerRunningInfo handles GET_CONSUMER_RUNNING_INFO: the client is asked, and its answer is passed on as it is.
func consumerRunningInfo(r *request) *answer {
	group, clientID := r.cmd.String("consumerGroup"), r.cmd.String("clientId")
	ch := r.b.clients.consumerChannel(group, clientID)
	if ch == nil {
		return refused(remoting.RespSystemError, "The Consumer <%s> <%s> not online", group, clientID)
	}
	ctx, cancel := context.WithTimeout(context.Background(), clientCallTimeout)
	defer cancel()
	a, err := r.b.calls.call(ctx, ch.connID, ch.conn, r.cmd.Code, nil, field{"consumerGroup", group}, field{"clientId", clientID},
		field{"jstackEnable", strconv.FormatBool(r.cmd.Bool("jstackEnable", false))})
	if err != nil {
		return failed(err)
	}
	return &answer{code: a.code, remark: a.remark, body: a.body}
}
