package broker

import (
	"errors"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

// getBrokerConfig handles GET_BROKER_CONFIG.
func getBrokerConfig(r *request) *answer {
	counter, at := r.b.cfg.Version()
	version := remoting.EncodeBody(remoting.DataVersion{Counter: counter, Timestamp: at})
	return (&answer{body: []byte(r.b.cfg.Text())}).with("version", string(version))
}

// updateBrokerConfig handles UPDATE_BROKER_CONFIG: all of the properties in the body or none, in force at once and written to the file that
// the broker was started with. Unlike the original it refuses names that would have no effect.
func updateBrokerConfig(r *request) *answer {
	if len(r.cmd.Body) == 0 {
		return succeeded() // nothing to change
	}
	properties, err := config.ParseProperties(r.cmd.Body)
	if err != nil {
		return failed(err)
	}
	before := r.b.cfg.Load()
	err = r.b.cfg.Update(properties)
	if after := r.b.cfg.Load(); after != before {
		r.b.configChanged(before, after)
	}
	switch {
	case err == nil:
		return succeeded()
	case errors.Is(err, config.ErrBlackListed):
		return refused(remoting.RespNoPermission, "Can not update config in black list.")
	case errors.Is(err, config.ErrNeedsRestart):
		return refused(remoting.RespNoPermission, "%s", err)
	}
	return failed(err)
}

// configChanged carries changes to where the configuration is not looked up at each use.
func (b *Broker) configChanged(before, after *config.Broker) {
	if retention, err := retentionOf(after); err == nil {
		b.store.SetRetention(retention)
	} else {
		b.log.Error("retention stays as it was", "err", err)
	}
	switch {
	case before.BrokerPermission != after.BrokerPermission:
		b.topics.touch()
		b.register.kick()
	case before.NamesrvAddr != after.NamesrvAddr:
		b.register.kick()
	}
}
