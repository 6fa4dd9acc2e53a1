package broker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

// unsupportedCodes are the request codes of RocketMQ that this broker does not serve, each with the reason.
var unsupportedCodes = map[int32]string{
	remoting.ReqQueryBrokerOffset:               "not handled by RocketMQ 5.5.0 either",
	remoting.ReqGetTopicConfigList:              "not handled by RocketMQ 5.5.0 either",
	remoting.ReqGetTopicNameList:                "not handled by RocketMQ 5.5.0 either",
	remoting.ReqTriggerDeleteFiles:              "not handled by RocketMQ 5.5.0 either",
	remoting.ReqEndTransaction:                  "later issue: transactions",
	remoting.ReqCheckTransactionState:           "client",
	remoting.ReqNotifyConsumerIDsChanged:        "client",
	remoting.ReqGetClientConfig:                 "not handled by RocketMQ 5.5.0 either",
	remoting.ReqGetTimerCheckPoint:              "later issue: timer wheel",
	remoting.ReqGetTimerMetrics:                 "later issue: timer wheel",
	remoting.ReqPutKVConfig:                     "name server",
	remoting.ReqGetKVConfig:                     "name server",
	remoting.ReqDeleteKVConfig:                  "name server",
	remoting.ReqRegisterBroker:                  "name server",
	remoting.ReqUnregisterBroker:                "name server",
	remoting.ReqGetRouteinfoByTopic:             "name server",
	remoting.ReqGetBrokerClusterInfo:            "name server",
	remoting.ReqWipeWritePermOfBroker:           "name server",
	remoting.ReqGetAllTopicListFromNameserver:   "name server",
	remoting.ReqSuspendConsumer:                 "not handled by RocketMQ 5.5.0 either",
	remoting.ReqResumeConsumer:                  "not handled by RocketMQ 5.5.0 either",
	remoting.ReqResetConsumerOffsetInConsumer:   "client",
	remoting.ReqResetConsumerOffsetInBroker:     "not handled by RocketMQ 5.5.0 either",
	remoting.ReqAdjustConsumerThreadPool:        "not handled by RocketMQ 5.5.0 either",
	remoting.ReqWhoConsumeTheMessage:            "not handled by RocketMQ 5.5.0 either",
	remoting.ReqDeleteTopicInNamesrv:            "name server",
	remoting.ReqRegisterTopicInNamesrv:          "name server",
	remoting.ReqGetKvlistByNamespace:            "name server",
	remoting.ReqResetConsumerClientOffset:       "client",
	remoting.ReqGetConsumerStatusFromClient:     "client",
	remoting.ReqGetTopicsByCluster:              "name server",
	remoting.ReqRegisterFilterServer:            "not handled by RocketMQ 5.5.0 either",
	remoting.ReqRegisterMessageFilterClass:      "not handled by RocketMQ 5.5.0 either",
	remoting.ReqGetSystemTopicListFromNS:        "name server",
	remoting.ReqGetUnitTopicList:                "name server",
	remoting.ReqGetHasUnitSubTopicList:          "name server",
	remoting.ReqGetHasUnitSubUnunitTopicList:    "name server",
	remoting.ReqUpdateNamesrvConfig:             "name server",
	remoting.ReqGetNamesrvConfig:                "name server",
	remoting.ReqQueryDataVersion:                "name server",
	remoting.ReqResumeCheckHalfMessage:          "later issue: transactions",
	remoting.ReqSendReplyMessage:                "later issue: request-reply",
	remoting.ReqSendReplyMessageV2:              "later issue: request-reply",
	remoting.ReqPushReplyMessageToClient:        "client",
	remoting.ReqAddWritePermOfBroker:            "name server",
	remoting.ReqCheckRocksdbCQWriteProgress:     "RocksDB store, which this broker does not have",
	remoting.ReqExportRocksdbConfigToJson:       "RocksDB store, which this broker does not have",
	remoting.ReqRecallMessage:                   "later issue: timer wheel",
	remoting.ReqUpdateAndCreateStaticTopic:      "later issue: static topics",
	remoting.ReqGetBrokerMemberGroup:            "name server",
	remoting.ReqAddBroker:                       "controller",
	remoting.ReqRemoveBroker:                    "controller",
	remoting.ReqBrokerHeartbeat:                 "name server",
	remoting.ReqNotifyMinBrokerIDChange:         "later issue: replication",
	remoting.ReqExchangeBrokerHAInfo:            "later issue: replication",
	remoting.ReqResetMasterFlushOffset:          "later issue: replication",
	remoting.ReqControllerAlterSyncStateSet:     "controller",
	remoting.ReqControllerElectMaster:           "controller",
	remoting.ReqControllerRegisterBroker:        "controller",
	remoting.ReqControllerGetReplicaInfo:        "controller",
	remoting.ReqControllerGetMetadataInfo:       "controller",
	remoting.ReqControllerGetSyncStateData:      "controller",
	remoting.ReqNotifyBrokerRoleChanged:         "controller",
	remoting.ReqUpdateControllerConfig:          "controller",
	remoting.ReqGetControllerConfig:             "controller",
	remoting.ReqCleanBrokerData:                 "controller",
	remoting.ReqControllerGetNextBrokerID:       "controller",
	remoting.ReqControllerApplyBrokerID:         "controller",
	remoting.ReqBrokerCloseChannelRequest:       "controller",
	remoting.ReqCheckNotActiveBrokerRequest:     "controller",
	remoting.ReqGetBrokerLiveInfoRequest:        "controller",
	remoting.ReqGetSyncStateDataRequest:         "controller",
	remoting.ReqRaftBrokerHeartBeatEventRequest: "controller",
	remoting.ReqUpdateColdDataFlowCtrConfig:     "later issue: cold data control, whose part the cold lane has",
	remoting.ReqRemoveColdDataFlowCtrConfig:     "later issue: cold data control, whose part the cold lane has",
	remoting.ReqGetColdDataFlowCtrInfo:          "later issue: cold data control, whose part the cold lane has",
	remoting.ReqSetCommitlogReadMode:            "later issue: cold data control, whose part the cold lane has",
	remoting.ReqAuthCreateUser:                  "later issue: access control",
	remoting.ReqAuthUpdateUser:                  "later issue: access control",
	remoting.ReqAuthDeleteUser:                  "later issue: access control",
	remoting.ReqAuthGetUser:                     "later issue: access control",
	remoting.ReqAuthListUser:                    "later issue: access control",
	remoting.ReqAuthCreateAcl:                   "later issue: access control",
	remoting.ReqAuthUpdateAcl:                   "later issue: access control",
	remoting.ReqAuthDeleteAcl:                   "later issue: access control",
	remoting.ReqAuthGetAcl:                      "later issue: access control",
	remoting.ReqAuthListAcl:                     "later issue: access control",
	remoting.ReqSwitchTimerEngine:               "later issue: timer wheel",
	remoting.ReqPopMessage:                      "later issue: POP",
	remoting.ReqAckMessage:                      "later issue: POP",
	remoting.ReqPeekMessage:                     "later issue: POP",
	remoting.ReqChangeMessageInvisibletime:      "later issue: POP",
	remoting.ReqNotification:                    "later issue: POP",
	remoting.ReqPollingInfo:                     "later issue: POP",
	remoting.ReqPopRollback:                     "later issue: POP",
	remoting.ReqPopLiteMessage:                  "later issue: lite topics",
	remoting.ReqLiteSubscriptionCtl:             "later issue: lite topics",
	remoting.ReqAckLiteMessage:                  "later issue: lite topics",
	remoting.ReqNotifyUnsubscribeLite:           "later issue: lite topics",
	remoting.ReqGetBrokerLiteInfo:               "later issue: lite topics",
	remoting.ReqGetParentTopicInfo:              "later issue: lite topics",
	remoting.ReqGetLiteTopicInfo:                "later issue: lite topics",
	remoting.ReqGetLiteClientInfo:               "later issue: lite topics",
	remoting.ReqGetLiteGroupInfo:                "later issue: lite topics",
	remoting.ReqTriggerLiteDispatch:             "later issue: lite topics",
	remoting.ReqBatchAckMessage:                 "later issue: POP",
}

func TestEveryRequestCodeIsServedOrListed(t *testing.T) {
	served := map[int32]bool{}
	for _, table := range [][]route{routeTable(), adminRoutes()} {
		for _, r := range table {
			require.False(t, served[r.code], "%s stands in the table twice", remoting.RequestName(r.code))
			require.NotEmpty(t, remoting.RequestName(r.code))
			require.NotEmpty(t, r.resource, remoting.RequestName(r.code))
			require.NotEmpty(t, r.action, remoting.RequestName(r.code))
			require.True(t, (r.hot == nil) != (r.slow == nil), "%s needs one handler", remoting.RequestName(r.code))
			served[r.code] = true
		}
	}
	for _, code := range remoting.RequestCodes() {
		_, listed := unsupportedCodes[code]
		require.True(t, served[code] != listed, "%s must be served or listed as unsupported, not both", remoting.RequestName(code))
	}
	require.Len(t, unsupportedCodes, len(remoting.RequestCodes())-len(served))
}
