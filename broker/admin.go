package broker

import "github.com/ringmq/ringmq/remoting"

// adminRoutes are the requests of tools. Does the work of AdminBrokerProcessor.
func adminRoutes() []route {
	return []route{
		{code: remoting.ReqUpdateAndCreateTopic, slow: updateTopic, lane: laneAdmin, resource: "Topic", action: "Create,Update"},
		{code: remoting.ReqDeleteTopicInBroker, slow: deleteTopic, lane: laneAdmin, resource: "Topic", action: "Delete"},
		{code: remoting.ReqGetTopicConfig, slow: topicConfig, lane: laneAdmin, resource: "Topic", action: "Get"},
		{code: remoting.ReqGetTopicStatsInfo, slow: topicStatsInfo, lane: laneAdmin, resource: "Topic", action: "Get"},
		{code: remoting.ReqUpdateAndCreateSubscriptiongroup, slow: updateGroup, lane: laneAdmin, resource: "Group", action: "Create,Update"},
		{code: remoting.ReqDeleteSubscriptiongroup, slow: deleteGroup, lane: laneAdmin, resource: "Group", action: "Delete"},
		{code: remoting.ReqGetSubscriptiongroupConfig, slow: groupConfig, lane: laneAdmin, resource: "Group", action: "Get"},
		{code: remoting.ReqGetConsumerConnectionList, slow: consumerConnection, lane: laneAdmin, resource: "Group", action: "Get"},
		{code: remoting.ReqGetProducerConnectionList, slow: producerConnection, lane: laneAdmin, resource: "Group", action: "Get"},
		{code: remoting.ReqGetConsumeStats, slow: consumeStats, lane: laneAdmin, resource: "Topic,Group", action: "Get"},
		{code: remoting.ReqGetConsumerRunningInfo, slow: consumerRunningInfo, lane: laneAdmin, resource: "Group", action: "Get"},
		{code: remoting.ReqGetBrokerConfig, slow: getBrokerConfig, lane: laneAdmin, resource: "Cluster", action: "Get"},
	}
}
