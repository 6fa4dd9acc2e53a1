package broker

import (
	"log/slog"
	"maps"
	"strings"
	"sync"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Ways in which a group gets a topic's messages (MessageRequestMode).
const (
	modePull = "PULL"
	modePop  = "POP"
)

// maxRequestModes bounds the pairs of topic and group that have a mode of their own.
const maxRequestModes = 100_000

// requestModes is how groups get their messages, for those that were told another way than the default, kept in messageRequestMode.json.
// Does the work of MessageRequestModeManager.
type requestModes struct {
	saver *saver
	log   *slog.Logger

	mu    sync.Mutex
	modes map[string]map[string]remoting.SetRequestModeBody // by topic, then by group
	pairs int
}

func openRequestModes(fsys ioengine.FS, dir string, acceptEmpty bool, log *slog.Logger) (*requestModes, error) {
	file, err := ioengine.OpenMetadata(fsys, dir, "messageRequestMode.json", log)
	if err != nil {
		return nil, err
	}
	m := &requestModes{log: log, modes: map[string]map[string]remoting.SetRequestModeBody{}}
	m.saver = newSaver(file, log, 0, func() []byte { return remoting.EncodeBody(m.snapshot()) })
	_, err = file.Load(acceptEmpty, func(text []byte) error {
		var saved remoting.RequestModeTable
		if err := decodeMetadata(text, &saved); err != nil {
			return err
		}
		for topic, groups := range saved.MessageRequestModeMap {
			if len(groups) > 0 {
				m.modes[topic] = groups
				m.pairs += len(groups)
			}
		}
		return nil
	})
	return m, err
}

// set is durable when the generation is.
func (m *requestModes) set(mode remoting.SetRequestModeBody) (generation uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	groups := m.modes[mode.Topic]
	if _, known := groups[mode.ConsumerGroup]; !known {
		if m.pairs >= maxRequestModes {
			return 0, refuse(remoting.RespSystemError, "%d pairs of topic and group have a request mode, no more can have one", m.pairs)
		}
		m.pairs++
	}
	if groups == nil {
		groups = map[string]remoting.SetRequestModeBody{}
		m.modes[mode.Topic] = groups
	}
	groups[mode.ConsumerGroup] = mode
	m.log.Info("request mode set", "topic", mode.Topic, "group", mode.ConsumerGroup, "mode", mode.Mode)
	return m.saver.markDirty(), nil
}

// snapshot is the whole table, as it is saved and answered to request 402.
func (m *requestModes) snapshot() remoting.RequestModeTable {
	m.mu.Lock()
	defer m.mu.Unlock()
	table := make(map[string]map[string]remoting.SetRequestModeBody, len(m.modes))
	for topic, groups := range m.modes {
		table[topic] = maps.Clone(groups)
	}
	return remoting.RequestModeTable{MessageRequestModeMap: table}
}

// topicDeleted forgets the modes of a topic.
func (m *requestModes) topicDeleted(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if groups, ok := m.modes[topic]; ok {
		m.pairs -= len(groups)
		delete(m.modes, topic)
		m.saver.markDirty()
	}
}

// setRequestMode handles SET_MESSAGE_REQUEST_MODE.
func setRequestMode(r *request) *answer {
	var mode remoting.SetRequestModeBody
	if err := remoting.DecodeBody(r.cmd.Body, &mode); err != nil {
		return failed(err)
	}
	switch {
	case strings.HasPrefix(mode.Topic, message.RetryTopicPrefix):
		return refused(remoting.RespNoPermission, "retry topic is not allowed to set mode")
	case r.b.topics.find(mode.Topic) == nil:
		return refused(remoting.RespTopicNotExist, "topic[%s] not exist", mode.Topic)
	case r.b.groups.find(mode.ConsumerGroup) == nil:
		return refused(remoting.RespSubscriptionGroupNotExist, "subscription group does not exist")
	case mode.Mode == modePop:
		// The group's members would send POP requests, which nobody answers.
		return refused(remoting.RespSystemError, "this version does not serve POP: only the mode %s can be set", modePull)
	case mode.Mode != modePull:
		return refused(remoting.RespInvalidParameter, "%.64q is no request mode", mode.Mode)
	}
	generation, err := r.b.modes.set(mode)
	if err == nil {
		err = r.b.modes.saver.waitSaved(generation, saveTimeout)
	}
	if err != nil {
		return failed(err)
	}
	return succeeded()
}

// allRequestModes handles GET_ALL_MESSAGE_REQUEST_MODE, by which a slave copies the table.
func allRequestModes(r *request) *answer { return r.bounded(r.b.modes.snapshot()) }
