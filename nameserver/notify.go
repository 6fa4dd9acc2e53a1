package nameserver

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

const (
	maxNotices    = 1024
	noticeTimeout = time.Second
)

// notifier tells the members of broker groups that the smallest id among them is another one (NOTIFY_MIN_BROKER_ID_CHANGE): a slave
// becomes acting master by it. The message is oneway and may be lost; brokers ask for their group's members anyway. It goes to the
// brokers' own ports, not to the connections they registered through: Java brokers listen for it there only.
type notifier struct {
	log     *slog.Logger
	notices chan *minIDNotice
	ctx     context.Context // ends with stop
	cancel  context.CancelFunc
	tls     *tls.Config // nil: plain; set before it runs
}

func newNotifier(log *slog.Logger) *notifier {
	ctx, cancel := context.WithCancel(context.Background())
	return &notifier{log: log, notices: make(chan *minIDNotice, maxNotices), ctx: ctx, cancel: cancel}
}

func (n *notifier) add(notice *minIDNotice) {
	select {
	case n.notices <- notice:
	default:
		n.log.Warn("smallest broker id changed, but too many notices are waiting: this one is dropped", "broker", notice.name)
	}
}

func (n *notifier) stop() { n.cancel() }

func (n *notifier) run() {
	for {
		select {
		case notice := <-n.notices:
			for _, addr := range notice.to {
				if err := n.send(addr, notice); err != nil {
					n.log.Warn("notice of the smallest broker id not delivered", "broker", notice.name, "addr", addr, "err", err)
				}
			}
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *notifier) send(addr string, notice *minIDNotice) error {
	c, err := client.Dial(n.ctx, addr, client.Options{DialTimeout: noticeTimeout, WriteTimeout: noticeTimeout, TLS: n.tls})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Oneway(client.Request{Code: remoting.ReqNotifyMinBrokerIDChange, Header: notice.writeTo})
}

func (n *minIDNotice) writeTo(w *remoting.Writer) {
	w.Int("minBrokerId", n.minID)
	w.Text("brokerName", n.name)
	w.Text("minBrokerAddr", n.minAddr)
	if n.offlineAddr != "" {
		w.Text("offlineBrokerAddr", n.offlineAddr)
	}
	if n.haAddr != "" {
		w.Text("haBrokerAddr", n.haAddr)
	}
}
