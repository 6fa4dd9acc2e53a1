package nameserver

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// What brokers say and ask, and what tools change about them.

var errChecksum = errors.New("crc32 not match")

func registerBroker(s *Server, r *request) reply {
	reg, err := s.parseRegistration(r)
	if err != nil {
		return failed(err)
	}
	result, err := s.routes.register(reg, s.now())
	if err != nil {
		s.log.Warn("broker registration refused", "broker", reg.name, "brokerId", reg.id, "addr", reg.addr, "client", r.peer.addr, "err", err)
		return failed(err)
	}
	// The connection may have closed while the request waited for its turn; see peer.closed.
	if r.peer.closed.Load() {
		s.peerClosed(r.peer)
	}
	s.logRegistration(reg, result)
	s.notify(result.notice)
	a := reply{}
	if result.masterAddr != "" {
		a.fields = [2]field{{"haServerAddr", result.haServerAddr}, {"masterAddr", result.masterAddr}}
	}
	if s.config.Load().ReturnOrderTopicConfigToBroker {
		if order := s.kv.list(orderTopicNamespace); order != nil {
			a.body = remoting.EncodeBody(remoting.KVTable{Table: order})
		}
	}
	return a
}

func (s *Server) logRegistration(reg *registration, result registered) {
	switch {
	case result.yields:
		s.log.Warn("broker registration ignored: another address holds its id with a newer state",
			"cluster", reg.cluster, "broker", reg.name, "brokerId", reg.id, "addr", reg.addr)
	case result.isNew:
		s.log.Info("broker registered", "cluster", reg.cluster, "broker", reg.name, "brokerId", reg.id, "addr", reg.addr,
			"topics", len(reg.body.Topics.TopicConfigTable), "lease", reg.lease)
	}
}

func (s *Server) parseRegistration(r *request) (*registration, error) {
	reg := &registration{peer: r.peer, body: new(remoting.RegisterBrokerBody), dropOld: s.config.Load().DeleteTopicWithBrokerRegistration}
	var err error
	if reg.name, reg.brokerAddr, reg.id, err = r.brokerFields(); err != nil {
		return nil, err
	}
	if reg.ha, err = r.text("haServerAddr"); err != nil {
		return nil, err
	}
	if reg.zone = r.String(zoneNameField); max(len(reg.ha), len(reg.zone)) > maxName {
		return nil, fmt.Errorf("haServerAddr or zone has more than %d bytes", maxName)
	}
	millis, err := r.Int("heartbeatTimeoutMillis", 0)
	if err != nil {
		return nil, err
	}
	reg.lease = lease(millis)
	_, reg.actingAware = r.Value("enableActingMaster")
	reg.acting = r.Bool("enableActingMaster", false)
	crc, err := r.Int("bodyCrc32", 0)
	if err != nil {
		return nil, err
	}
	if crc != 0 && crc != int64(message.BodyCRC(r.Body)) {
		return nil, errChecksum
	}
	if err := reg.body.Decode(r.Body); err != nil {
		return nil, fmt.Errorf("registration of broker %s: %w", reg.name, err)
	}
	for topic := range reg.body.Topics.TopicConfigTable {
		if topic == "" || len(topic) > maxName {
			return nil, fmt.Errorf("registration of broker %s: a topic name of %d bytes, want 1 to %d", reg.name, len(topic), maxName)
		}
	}
	return reg, nil
}

// brokerFields reads what identifies a broker in several requests.
func (r *request) brokerFields() (name string, a brokerAddr, id int64, err error) {
	if name, err = r.name("brokerName"); err != nil {
		return
	}
	if a.addr, err = r.name("brokerAddr"); err != nil {
		return
	}
	if a.cluster, err = r.name("clusterName"); err != nil {
		return
	}
	id, err = r.number("brokerId")
	return
}

func unregisterBroker(s *Server, r *request) reply {
	name, a, id, err := r.brokerFields()
	if err != nil {
		return failed(err)
	}
	s.log.Info("broker unregistered", "cluster", a.cluster, "broker", name, "brokerId", id, "addr", a.addr, "client", r.peer.addr)
	s.notify(s.routes.unregister([]removal{{a, name, id}})...)
	return reply{}
}

func brokerHeartbeat(s *Server, r *request) reply {
	cluster, err := r.text("clusterName")
	if err != nil {
		return failed(err)
	}
	addr, err := r.text("brokerAddr")
	if err != nil {
		return failed(err)
	}
	// An unknown broker is answered with success as by Java: it registers again within its period.
	s.routes.seen(brokerAddr{cluster, addr}, s.now())
	return reply{}
}

func queryDataVersion(s *Server, r *request) reply {
	_, a, _, err := r.brokerFields()
	if err != nil {
		return failed(err)
	}
	var theirs remoting.DataVersion
	if err := remoting.DecodeBody(r.Body, &theirs); err != nil {
		return failed(err)
	}
	ours, known := s.routes.seen(a, s.now())
	result := reply{fields: [2]field{{"changed", strconv.FormatBool(!known || ours != theirs)}}}
	if known {
		result.body = remoting.EncodeBody(ours)
	}
	return result
}

func wipeWritePerm(s *Server, r *request) reply {
	return s.changePerm(r, "wipeTopicCount", func(perm int32) int32 { return perm &^ remoting.PermWrite })
}

func addWritePerm(s *Server, r *request) reply {
	return s.changePerm(r, "addTopicCount", func(int32) int32 { return remoting.PermRead | remoting.PermWrite })
}

func (s *Server) changePerm(r *request, countField string, change func(perm int32) int32) reply {
	name, err := r.text("brokerName")
	if err != nil {
		return failed(err)
	}
	count := s.routes.setPerm(name, change)
	s.log.Info("write permission changed", "request", remoting.RequestName(r.Code), "broker", name, "topics", count, "client", r.peer.addr)
	return reply{fields: [2]field{{countField, strconv.Itoa(count)}}}
}
