package broker

import (
	"cmp"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// updateGroup handles UPDATE_AND_CREATE_SUBSCRIPTIONGROUP.
func updateGroup(r *request) *answer {
	var c remoting.SubscriptionGroupConfig
	if err := remoting.DecodeBody(r.cmd.Body, &c); err != nil {
		return failed(err)
	}
	return r.setGroups(c)
}

// updateGroupList handles UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST: all of them or none.
func updateGroupList(r *request) *answer {
	var body remoting.SubscriptionGroupList
	if err := remoting.DecodeBody(r.cmd.Body, &body); err != nil {
		return failed(err)
	}
	return r.setGroups(body.GroupConfigList...)
}

func (r *request) setGroups(want ...remoting.SubscriptionGroupConfig) *answer {
	generation, err := r.b.groups.update(want...)
	if err == nil {
		err = r.b.groups.waitSaved(generation, saveTimeout)
	}
	if err != nil {
		return failed(err)
	}
	return succeeded()
}

// deleteGroup handles DELETE_SUBSCRIPTIONGROUP; cleanOffset takes the group's offsets with it.
func deleteGroup(r *request) *answer {
	name := r.cmd.String("groupName")
	if remark := message.CheckGroup([]byte(name)); remark != "" {
		return refused(remoting.RespInvalidParameter, "%s", remark)
	}
	_, generation := r.b.groups.delete(name)
	if err := r.b.groups.waitSaved(generation, saveTimeout); err != nil {
		return failed(err)
	}
	if r.cmd.Bool("cleanOffset", false) {
		if err := r.b.offsets.saver.waitSaved(r.b.offsets.deleteGroup(name), saveTimeout); err != nil {
			return failed(err)
		}
	}
	r.b.stats.groupDeleted(name)
	return succeeded()
}

// groupConfig handles GET_SUBSCRIPTIONGROUP_CONFIG.
func groupConfig(r *request) *answer {
	g := r.b.groups.find(r.cmd.String("group"))
	if g == nil {
		return refused(remoting.RespSubscriptionGroupNotExist, "No group in this broker. group: %s", r.cmd.String("group"))
	}
	return withBody(g.config.Load())
}

// allGroups handles GET_ALL_SUBSCRIPTIONGROUP_CONFIG.
func allGroups(r *request) *answer {
	version, seq, most, err := r.pageOf("groupSeq", "maxGroupNum")
	if err != nil {
		return failed(err)
	}
	page, total := r.b.groups.page(version, seq, most)
	return r.bounded(page).with("totalGroupNum", total)
}

// groupForbidden handles UPDATE_AND_GET_GROUP_FORBIDDEN: whether a group may read a topic, after the change that the request may ask for.
func groupForbidden(r *request) *answer {
	group, topic := r.cmd.String("group"), r.cmd.String("topic")
	if _, change := r.cmd.Value("readable"); change {
		if remark := cmp.Or(message.CheckGroup([]byte(group)), message.CheckTopic([]byte(topic))); remark != "" {
			return refused(remoting.RespInvalidParameter, "%s", remark)
		}
		generation, err := r.b.groups.setReadable(group, topic, r.cmd.Bool("readable", true))
		if err == nil {
			err = r.b.groups.waitSaved(generation, saveTimeout)
		}
		if err != nil {
			return failed(err)
		}
	}
	readable := r.b.groups.mayRead([]byte(group), []byte(topic))
	return withBody(remoting.GroupForbidden{Group: group, Readable: &readable, Topic: topic})
}
