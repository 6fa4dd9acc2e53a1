package broker

import "github.com/ringmq/ringmq/remoting"

// adminRoutes are the requests of tools and of slaves that copy the tables. They may be long, so they have a lane of their own. Does the work
// of AdminBrokerProcessor and QueryAssignmentProcessor.
func adminRoutes() []route {
	rows := []route{
		{code: remoting.ReqUpdateAndCreateTopic, slow: updateTopic, resource: "Topic", action: "Create,Update"},
		{code: remoting.ReqUpdateAndCreateTopicList, slow: updateTopicList, resource: "Topic", action: "Create,Update"},
		{code: remoting.ReqDeleteTopicInBroker, slow: deleteTopic, resource: "Topic", action: "Delete"},
		{code: remoting.ReqGetTopicConfig, slow: topicConfig, resource: "Topic", action: "Get"},
		{code: remoting.ReqGetAllTopicConfig, slow: allTopics, resource: "Topic", action: "Get,List"},
		{code: remoting.ReqGetTopicStatsInfo, slow: topicStatsInfo, resource: "Topic", action: "Get"},
		{code: remoting.ReqGetSystemTopicListFromBroker, slow: systemTopics, resource: "Topic", action: "List"},
		{code: remoting.ReqCleanUnusedTopic, slow: cleanUnusedTopics, resource: "Cluster", action: "Update"},

		{code: remoting.ReqUpdateAndCreateSubscriptiongroup, slow: updateGroup, resource: "Group", action: "Create,Update"},
		{code: remoting.ReqUpdateAndCreateSubscriptiongroupList, slow: updateGroupList, resource: "Group", action: "Create,Update"},
		{code: remoting.ReqDeleteSubscriptiongroup, slow: deleteGroup, resource: "Group", action: "Delete"},
		{code: remoting.ReqGetSubscriptiongroupConfig, slow: groupConfig, resource: "Group", action: "Get"},
		{code: remoting.ReqGetAllSubscriptiongroupConfig, slow: allGroups, resource: "Group", action: "Get,List"},
		{code: remoting.ReqUpdateAndGetGroupForbidden, slow: groupForbidden, resource: "Topic,Group", action: "Update"},
		{code: remoting.ReqSetMessageRequestMode, slow: setRequestMode, resource: "Topic,Group", action: "Update"},
		{code: remoting.ReqGetAllMessageRequestMode, slow: allRequestModes, resource: "Cluster", action: "Get"},
		{code: remoting.ReqQueryAssignment, slow: queryAssignment, resource: "Topic,Group", action: "Sub"},

		{code: remoting.ReqGetConsumerConnectionList, slow: consumerConnection, resource: "Group", action: "Get"},
		{code: remoting.ReqGetProducerConnectionList, slow: producerConnection, resource: "Cluster", action: "Get"},
		{code: remoting.ReqGetAllProducerInfo, slow: allProducers, resource: "Cluster", action: "Get"},
		{code: remoting.ReqQueryTopicConsumeByWho, slow: groupsOfTopic, resource: "Topic", action: "Get"},
		{code: remoting.ReqQueryTopicsByConsumer, slow: topicsOfGroup, resource: "Group", action: "Get"},
		{code: remoting.ReqQuerySubscriptionByConsumer, slow: groupSubscription, resource: "Topic,Group", action: "Get"},
		{code: remoting.ReqGetConsumerRunningInfo, slow: consumerRunningInfo, resource: "Group", action: "Get"},
		{code: remoting.ReqConsumeMessageDirectly, slow: consumeDirectly, resource: "Topic,Group", action: "Sub"},
		{code: remoting.ReqInvokeBrokerToGetConsumerStatus, slow: consumerStatus, resource: "Topic,Group", action: "Get"},

		{code: remoting.ReqGetConsumeStats, slow: consumeStats, resource: "Topic,Group", action: "Get"},
		{code: remoting.ReqGetBrokerConsumeStats, slow: allConsumeStats, resource: "Cluster", action: "Get"},
		{code: remoting.ReqQueryConsumeTimeSpan, slow: consumeTimeSpan, resource: "Topic,Group", action: "Get"},
		{code: remoting.ReqQueryCorrectionOffset, slow: correctionOffsets, resource: "Topic,Group", action: "Get"},
		{code: remoting.ReqCloneGroupOffset, slow: cloneGroupOffset, resource: "Topic,Group", action: "Update"},
		{code: remoting.ReqInvokeBrokerToResetOffset, slow: resetOffset, resource: "Topic,Group", action: "Update"},
		{code: remoting.ReqGetAllConsumerOffset, slow: allConsumerOffsets, resource: "Cluster", action: "Get"},
		{code: remoting.ReqGetAllDelayOffset, slow: allDelayOffsets, resource: "Cluster", action: "Get"},

		{code: remoting.ReqGetBrokerConfig, slow: getBrokerConfig, resource: "Cluster", action: "Get"},
		{code: remoting.ReqUpdateBrokerConfig, slow: updateBrokerConfig, resource: "Cluster", action: "Update"},
		{code: remoting.ReqGetBrokerRuntimeInfo, slow: runtimeInfo, resource: "Cluster", action: "Get"},
		{code: remoting.ReqViewBrokerStatsData, slow: statsData, resource: "Cluster", action: "Get"},
		{code: remoting.ReqGetBrokerHAStatus, slow: haStatus, resource: "Cluster", action: "Get"},
		{code: remoting.ReqGetBrokerEpochCache, slow: epochCache, resource: "Cluster", action: "Get"},

		{code: remoting.ReqQueryConsumeQueue, slow: queryConsumeQueue, resource: "Topic,Group", action: "Get"},
		{code: remoting.ReqCleanExpiredConsumequeue, slow: cleanExpiredQueues, resource: "Cluster", action: "Update"},
		{code: remoting.ReqDeleteExpiredCommitlog, slow: deleteExpiredLog, resource: "Cluster", action: "Update"},
	}
	for i := range rows {
		rows[i].lane = laneAdmin
	}
	return rows
}
