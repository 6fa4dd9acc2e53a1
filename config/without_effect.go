package config

import (
	"strings"
	"sync"
)

// refusal is a property whose value would ask for something that ringmq cannot do, and whose loss the operator must
// not learn from a log line: access control that is not enforced, messages in a place that is not read.
type refusal struct {
	harmless func(value string) bool
	reason   string
}

// refusals stop the start unless the value is harmless. Each name is also in withoutEffectTable.
var refusals = map[string]refusal{
	"aclEnable":                   {off, "access control comes with a later version"},
	"authenticationEnabled":       {off, "access control comes with a later version"},
	"authorizationEnabled":        {off, "access control comes with a later version"},
	"enableControllerInNamesrv":   {off, "controller mode comes with a later version"},
	"enableControllerMode":        {off, "controller mode comes with a later version"},
	"enableDLegerCommitLog":       {off, "DLedger is not supported"},
	"messageStorePlugIn":          {empty, "store plug-ins are Java classes"},
	"readOnlyCommitLogStorePaths": {empty, "the CommitLog has one directory, storePathCommitLog"},
	"storeType":                   {func(v string) bool { return v == "" || v == "default" }, "queues are kept in RocketMQ's files, not in RocksDB"},
	"timerRocksDBEnable":          {off, "timers are not kept in RocksDB"},
	"transRocksDBEnable":          {off, "half messages are not kept in RocksDB"},
	"useTLS":                      {off, "write tls.enable=true instead"},
}

// off accepts what Java reads as false.
func off(value string) bool { return !strings.EqualFold(strings.TrimSpace(value), "true") }

func empty(value string) bool { return strings.TrimSpace(value) == "" }

// withoutEffect maps each property of the RocketMQ 5.5.0 broker, name server and controller that ringmq does not have
// to the reason why not.
var withoutEffect = sync.OnceValue(func() map[string]string {
	reasons := make(map[string]string)
	for _, group := range withoutEffectTable {
		for name := range strings.FieldsSeq(group.names) {
			reasons[name] = group.reason
		}
	}
	return reasons
})

// withoutEffectTable holds the names by reason. testdata/java-5.5.0-properties.tsv lists what the Java classes have:
// a name is there, and either here or a field of Broker or NameServer.
var withoutEffectTable = []struct{ reason, names string }{
	{"the storage engine prepares, maps, writes and recovers files its own way", `
		bottomMostCompressionTypeForConsumeQueueStore checkCRCOnRecover checkCommitLogOffsetOnRecover
		cleanFileForciblyEnable cleanSwapedMapInterval commitCommitLogLeastPages commitCommitLogThoroughInterval
		commitIntervalCommitLog commitLogForceSwapMapInterval commitLogRecoverMaxNum commitLogSwapMapInterval
		commitLogSwapMapReserveFileNum correctLogicMinOffsetForceInterval correctLogicMinOffsetSleepInterval
		debugLockEnable deleteConsumeQueueFilesInterval deleteFileBatchMax diskFallRecorded enableAcceleratedRecovery
		enableCleanExpiredOffset enableLogConsumeQueueRepeatedlyBuildWhenRecover enableRunningFlagsInFlush
		fastFailIfNoBufferInStorePool flushCommitLogLeastPages flushCommitLogThoroughInterval flushCommitLogTimed
		flushConsumeQueueLeastPages flushConsumeQueueThoroughInterval flushIntervalConsumeQueue
		flushLeastPagesWhenWarmMapedFile forceVerifyPropCRC indexFileReadEnable indexFileWriteEnable
		logicQueueForceSwapMapInterval logicQueueSwapMapInterval logicQueueSwapMapReserveFileNum
		logicalDiskSpaceCleanForciblyThreshold mappedFileSwapEnable maxAsyncPutMessageRequests maxBatchDeleteFilesNum
		maxRecoveryCommitlogFiles maxTopicLength messageIndexSafe osPageCacheBusyTimeOutMills
		putConsumeQueueDataByFileChannel putMessageTimeout putMsgIndexHightWater readOnlyCommitLogStorePaths
		readUnCommitted recheckReputOffsetFromCq recoverConcurrently redeleteHangedFileInterval sharedByteBufferNum
		spinLockCollisionRetreatOptimalDegree topicQueueLockNum transientStorePoolEnable transientStorePoolSize
		destroyMapedFileIntervalForcibly travelCqFileNumWhenGetMessage useABSLock useReentrantLockWhenPutMessage wakeCommitWhenPutMessage
		wakeFlushWhenPutMessage warmMapedFileEnable writeWithoutMmap
	`},
	{"a handler runs on its connection's reactor: there are no thread pools and queues to size", `
		ackMessageThreadPoolNums ackThreadPoolQueueCapacity adminBrokerThreadPoolNums
		adminBrokerThreadPoolQueueCapacity asyncSendEnable batchDispatchRequestThreadPoolNums brokerFastFailureEnable
		clientManageThreadPoolNums clientManagerThreadPoolQueueCapacity clientRequestThreadPoolNums
		clientRequestThreadPoolQueueCapacity consumerManageThreadPoolNums consumerManagerThreadPoolQueueCapacity
		defaultThreadPoolNums defaultThreadPoolQueueCapacity dispatchCqCacheNum dispatchCqThreads
		dispatchFromSenderThread enableAsyncReput enableBuildConsumeQueueConcurrently enableFastChannelEventProcess
		endTransactionPoolQueueCapacity endTransactionThreadPoolNums heartbeatThreadPoolNums
		heartbeatThreadPoolQueueCapacity litePullMessageThreadPoolNums litePullThreadPoolQueueCapacity
		loadBalanceProcessorThreadPoolNums loadBalanceThreadPoolQueueCapacity processReplyMessageThreadPoolNums
		pullMessageThreadPoolNums pullThreadPoolQueueCapacity putMessageFutureThreadPoolNums
		putThreadPoolQueueCapacity queryMessageThreadPoolNums queryThreadPoolQueueCapacity recoverThreadPoolNums
		replyThreadPoolQueueCapacity sendMessageThreadPoolNums sendThreadPoolQueueCapacity timerGetMessageThreadNum
		timerPutMessageThreadNum unRegisterBrokerQueueCapacity waitTimeMillsInAckQueue waitTimeMillsInAdminBrokerQueue
		waitTimeMillsInHeartbeatQueue waitTimeMillsInLitePullQueue waitTimeMillsInPullQueue
		waitTimeMillsInSendQueue waitTimeMillsInTransactionQueue
	`},
	{"connections are served by reactors, not by Netty", `
		channelNotActiveInterval clientAsyncSemaphoreValue clientCallbackExecutorThreads
		clientChannelMaxIdleTimeSeconds clientCloseSocketIfTimeout clientOnewaySemaphoreValue
		clientPooledByteBufAllocatorEnable clientSocketRcvBufSize clientSocketSndBufSize clientWorkerThreads
		connectTimeoutMillis disableCallbackExecutor disableNettyWorkerGroup enableReconnectForGoAway
		enableShutdownGracefully maxReconnectIntervalTimeSeconds scanAvailableNameSrv serverAsyncSemaphoreValue
		serverCallbackExecutorThreads serverNettyWorkerGroupEnable serverOnewaySemaphoreValue
		serverPooledByteBufAllocatorEnable serverSelectorThreads serverSocketRcvBufSize serverSocketSndBufSize
		serverWorkerThreads shutdownWaitTimeSeconds socksProxyConfig useEpollNativeSelector useTLS
		writeBufferHighWaterMark writeBufferLowWaterMark
	`},
	{"name servers are listed in namesrvAddr: looking the list up elsewhere is not supported", `
		fetchNameSrvAddrByDnsLookup fetchNamesrvAddrByAddressServer fetchNamesrvAddrInterval
		updateNameServerAddrPeriod
	`},
	{"the cold reader keeps old reads away from the write path by itself", `
		accessMessageInMemoryHotRatio cgColdReadThreshold coldCtrStrategyEnable coldDataFlowControlEnable
		coldDataScanEnable consumerFallbehindThreshold dataReadAheadEnable disableConsumeIfConsumerReadSlowly
		enableNetWorkFlowControl globalColdReadThreshold highSpeedMode transferMsgByHeap usePIDColdCtrStrategy
	`},
	{"tag and SQL92 filters work on the records themselves: there is no bit map to configure", `
		bitMapLengthConsumeQueueExt enableCalcFilterBitMap enableConsumeQueueExt expectConsumerNumUseFilter
		filterDataCleanTimeSpan filterSupportRetry mappedFileSizeConsumeQueueExt maxConsumeQueueScan
		maxErrorRateOfBloomFilter sampleCountThreshold sampleSteps useStaticSubscription
	`},
	{"metrics are always on, at metricsListen", `
		accountStatsEnable accountStatsPrintZeroValues autoDeleteUnusedStats commercialBaseCount commercialSizePerMsg
		enableConnectionMetrics enableDetailStat enableLagAndDlqMetrics enableLmqStats enableMessageStoreMetrics
		enableRemotingMetrics enableRequestMetrics enableStatsMetrics estimateAccumulation maxStatsIdleTimeInMinutes
		metricGrpcExporterIntervalInMills metricGrpcExporterTimeOutInMills metricLoggingExporterIntervalInMills
		metricsExportBatchMaxDataPoints metricsExporterType metricsGrpcExporterHeader metricsGrpcExporterTarget
		metricsInDelta metricsLabel metricsOtelCardinalityLimit metricsPromExporterHost metricsPromExporterPort
		printChannelGroups printChannelGroupsMinNum
	`},
	{"it cannot be adjusted: ringmq does what RocketMQ does by default, as far as it has the feature", `
		autoMessageVersionOnTopicLen broadcastOffsetExpireMaxSecond broadcastOffsetExpireSecond enableBroadcastOffsetStore enableCreateSysGroup
		enableRegisterProducer enableSingleTopicRegister forceRegister realTimeNotifyConsumerChange
		rejectPullConsumerEnable sendHeartbeatTimeoutMillis enableSplitMetadata flushConsumerOffsetHistoryInterval
		maxMessageFilterNumForNotification splitMetadataSize storeReplyMessageEnable subscriptionExpiredTimeout
	`},
	{"it concerns the Java program only", `
		brokerConfigPath isolateLogEnable messageStorePlugIn productEnvName rocketmqHome
		startAcceptSendRequestTimeStamp
	`},
	{"access control comes with a later version", `
		aclCacheExpiredSecond aclCacheMaxNum aclCacheRefreshSecond aclEnable authConfigPath authenticationEnabled
		authenticationMetadataProvider authenticationProvider authenticationStrategy authenticationWhitelist
		authorizationEnabled authorizationMetadataProvider authorizationProvider authorizationStrategy
		authorizationWhitelist clusterName configName initAuthenticationUser innerClientAuthenticationCredentials
		migrateAuthFromV1Enabled statefulAuthenticationCacheExpiredSecond statefulAuthenticationCacheMaxNum
		statefulAuthorizationCacheExpiredSecond statefulAuthorizationCacheMaxNum userCacheExpiredSecond
		userCacheMaxNum userCacheRefreshSecond
	`},
	{"replication comes with a later version", `
		asyncLearner brokerContainer cleanOfflineBrokerInterval compatibleWithOldNameSrv
		consumerOffsetUpdateVersionStep disappearTimeAfterStart duplicationEnable enableAutoInSyncReplicas
		enableRemoteEscape enableSlaveActingMaster forwardTimeout haFlowControlEnable haHousekeepingInterval
		haMasterAddress haMaxGapNotInSync haMaxTimeSlaveNotCatchup haSendHeartbeatInterval haTransferBatchSize
		inBrokerContainer lockInStrictMode maxChecksumRange maxHaTransferByteInSecond maxSlaveResendLength
		minInSyncReplicas offsetCheckInSlave replicasPerDiskPartition skipPreOnline slaveTimeout
		storePathBrokerIdentity storePathEpochFile syncBrokerMemberGroupPeriod syncFromLastFile
		syncMasterFlushOffsetWhenStartup totalReplicas
	`},
	{"controller mode comes with a later version", `
		allAckInSyncStateSet brokerElectionPriority checkSyncStateSetPeriod controllerAddr controllerDLegerGroup
		controllerDLegerPeers controllerDLegerSelfId controllerHeartBeatTimeoutMills
		controllerRequestThreadPoolQueueCapacity controllerStorePath controllerThreadPoolNums controllerType
		electMasterMaxRetryCount enableControllerInNamesrv enableControllerMode enableElectUncleanMaster
		fetchControllerAddrByDnsLookup isProcessReadEvent jRaftControllerRPCAddr jRaftElectionTimeoutMs jRaftGroupId
		jRaftInitConf jRaftScanWaitTimeoutMs jRaftServerId jRaftSnapshotIntervalSecs mappedFileSize
		notifyBrokerRoleChanged scanInactiveMasterInterval syncBrokerMetadataPeriod syncControllerMetadataPeriod
	`},
	{"SQL92 filters come with a later version; such subscriptions are refused", `
		enablePropertyFilter
	`},
	{"transactions come with a later version; until then their messages are refused", `
		enableTransactionMetrics rejectTransactionMessage transactionCheckInterval transactionCheckMax transactionMetricFlushInterval
		transactionOpBatchInterval transactionOpMsgMaxSize transactionTimeOut
	`},
	{"POP consumption comes with a later version", `
		appendAckAsync appendCkAsync defaultMessageRequestMode defaultPopShareQueueNum
		enableNotifyAfterPopOrderLockRelease enableNotifyBeforePopCalculateLag enablePopBatchAck enablePopBufferMerge
		enablePopLog enablePopMessageThreshold enablePopMetrics enableRetryTopicV2 enableSkipLongAwaitingAck
		initPopOffsetByCheckMsgInMem loadBalancePollNameServerInterval maxPopPollingSize popCkMaxBufferSize
		popCkOffsetMaxQueueSize popCkStayBufferTime popCkStayBufferTimeOut popConsumerFSServiceInit
		popConsumerKVServiceEnable popConsumerKVServiceInit popConsumerKVServiceLog popFromRetryProbability
		popFromRetryProbabilityForPriority popInflightMessageThreshold popLongPollingForceNotifyInterval
		popPollingMapExpireTimeSeconds popPollingMapSize popPollingSize popResponseReturnActualRetryTopic
		popReviveConcurrency popReviveMaxAttemptTimes popReviveMaxReturnSizePerRead popReviveSkipIfGroupAbsent
		priorityOrderAsc retrieveMessageFromPopRetryTopicV1 reviveAckWaitMs reviveInterval reviveMaxSlow
		reviveQueueNum reviveScanTime serverLoadBalancerEnable skipWhenCKRePutReachMaxTimes
		useMessageFilterForNotification useSeparateRetryQueue
	`},
	{"delayed messages of arbitrary time come with a later version", `
		allowRecallWhenBrokerNotWriteable appendTopicForTimerDeleteKey delayOffsetUpdateVersionStep
		enableScheduleAsyncDeliver enableScheduleMessageStats flushDelayOffsetInterval mappedFileSizeTimerLog
		recallMessageEnable scheduleAsyncDeliverMaxPendingLimit scheduleAsyncDeliverMaxResendNum2Blocked
		timerCheckMetricsWhen timerColdDataCheckIntervalMs timerCongestNumEachSlot timerEnableCheckMetrics
		timerEnableDisruptor timerEnableRetryUntilSuccess timerFlushIntervalMs timerInterceptDelayLevel
		timerMaxDelaySec timerMetricSmallThreshold timerPrecisionMs timerProgressLogIntervalMs timerRollWindowSlot
		timerSkipUnknownError timerStopDequeue timerStopEnqueue timerWarmEnable timerWheelEnable
		timerWheelSnapshotFlush timerWheelSnapshotIntervalMs
	`},
	{"lite topics come with a later version", `
		enableLiteEventMode enableLitePopLog liteEventCheckInterval liteEventFullDispatchDelayTime
		liteEventFullDispatchDelayTimeForWildcardGroup liteLagCountMetricsEnable liteLagLatencyCollectEnable
		liteLagLatencyMetricsEnable liteLagLatencyTopK liteSubscriptionCheckInterval liteSubscriptionCheckTimeoutMills
		liteTtlCheckInterval maxClientEventCount maxLiteSubscriptionCount minLiteTTl
	`},
	{"compacted topics come with a later version", `
		compactionCqMappedFileSize compactionMappedFileSize compactionScheduleInternal compactionThreadNum
		enableCompaction maxOffsetMapSize
	`},
	{"light message queues come with a later version", `
		enableLmq enableLmqQuota enableMultiDispatch maxLmqConsumeQueueNum
	`},
	{"batch queues come with a later version", `
		mapperFileSizeBatchConsumeQueue maxMsgsNumBatch pullBatchMaxMessageCount searchBcqByCacheEnable
	`},
	{"ringmq has no RocksDB store: queues, index, timers and tables have one form each", `
		cleanRocksDBDirtyCQIntervalMin combineAssignOffsetCQType combineCQEnableCheckSelf combineCQLoadingCQTypes
		combineCQMaxExtraSearchCommitLogFiles combineCQPreferCQType combineCQUseRocksdbForLmq configManagerVersion
		enableRocksDBLog indexRocksDBEnable iteratorWhenUseRocksdbConsumeQueue maxRocksDBIndexQueryDays
		memTableFlushIntervalMs persistConsumerOffsetIncrementally realTimePersistRocksDBConfig
		rocksdbCQDoubleWriteEnable rocksdbCompressionType rocksdbFlushWalFrequency rocksdbWalFileRollingThreshold
		statRocksDBCQIntervalSec storeType timerRecallToTimeWheelEnable timerRecallToTimelineEnable
		timerReputServiceCorePoolSize timerReputServiceMaxPoolSize timerReputServiceQueueCapacity timerRocksDBEnable
		timerRocksDBPrecisionMs timerRocksDBRollIntervalHours timerRocksDBRollMaxTps timerRocksDBRollRangeHours
		timerRocksDBStopScan timerRocksDBTimeExpiredMaxTps transRocksDBEnable transWriteOriginTransHalfEnable
		transactionCheckRocksdbCoreThreads transactionCheckRocksdbMaxThreads transactionCheckRocksdbQueueCapacity
		useSeparateStorePathForRocksdbCQ useSingleRocksDBForAllConfigs
	`},
	{"DLedger is not supported", `
		dLegerGroup dLegerPeers dLegerSelfId enableBatchPush enableDLegerCommitLog preferredLeaderId
		storePathDLedgerCommitLog
	`},
}
