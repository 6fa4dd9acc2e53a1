package nameserver

import (
	"errors"
	"fmt"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

// The key-value configuration and the server's own.

func putKV(s *Server, r *request) reply {
	namespace, key, err := r.kvFields()
	if err != nil {
		return failed(err)
	}
	value, err := r.text("value")
	if err != nil {
		return failed(err)
	}
	if err := s.kv.put(namespace, key, value); err != nil {
		return failed(err)
	}
	s.log.Info("key-value configuration set", "namespace", namespace, "key", key, "client", r.peer.addr)
	return reply{}
}

func (r *request) kvFields() (namespace, key string, err error) {
	if namespace, err = r.text("namespace"); err == nil {
		key, err = r.text("key")
	}
	return namespace, key, err
}

func getKV(s *Server, r *request) reply {
	namespace, key, err := r.kvFields()
	if err != nil {
		return failed(err)
	}
	value, ok := s.kv.get(namespace, key)
	if !ok {
		return reply{code: remoting.RespQueryNotFound, remark: fmt.Sprintf("No config item, Namespace: %s Key: %s", namespace, key)}
	}
	return reply{fields: [2]field{{"value", value}}}
}

func deleteKV(s *Server, r *request) reply {
	namespace, key, err := r.kvFields()
	if err != nil {
		return failed(err)
	}
	if err := s.kv.remove(namespace, key); err != nil {
		return failed(err)
	}
	s.log.Info("key-value configuration deleted", "namespace", namespace, "key", key, "client", r.peer.addr)
	return reply{}
}

func listKV(s *Server, r *request) reply {
	namespace, err := r.text("namespace")
	if err != nil {
		return failed(err)
	}
	keys := s.kv.list(namespace)
	if keys == nil {
		return reply{code: remoting.RespQueryNotFound, remark: "No config item, Namespace: " + namespace}
	}
	return reply{body: remoting.EncodeBody(remoting.KVTable{Table: keys})}
}

func getConfig(s *Server, _ *request) reply { return reply{body: []byte(s.config.Text())} }

func updateConfig(s *Server, r *request) reply {
	properties, err := config.ParseProperties(r.Body)
	if err != nil {
		return failed(err)
	}
	err = s.config.Update(properties)
	switch {
	case err == nil:
		return reply{}
	case errors.Is(err, config.ErrBlackListed):
		return reply{code: remoting.RespNoPermission, remark: "Can not update config in black list."}
	case errors.Is(err, config.ErrNeedsRestart):
		return reply{code: remoting.RespNoPermission, remark: err.Error()}
	}
	return failed(err)
}
