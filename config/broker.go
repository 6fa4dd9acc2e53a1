package config

// Words accepted by the properties of the same meaning.
const (
	AsyncMaster = "ASYNC_MASTER"
	SyncMaster  = "SYNC_MASTER"
	Slave       = "SLAVE"

	AsyncFlush = "ASYNC_FLUSH"
	SyncFlush  = "SYNC_FLUSH"

	TLSDisabled   = "disabled"
	TLSPermissive = "permissive"
	TLSEnforcing  = "enforcing"
)

// Broker is everything that can be set for a broker. Does the work of BrokerConfig, MessageStoreConfig,
// NettyServerConfig and TlsSystemConfig.
//
// Fields that are empty or zero "for automatic" are filled in by the loader: a snapshot taken from [LoadBroker] or
// [DefaultBroker] holds the values in force.
type Broker struct {
	// ---- Who this broker is ----

	// BrokerClusterName groups brokers in routes and in the tools. Default DefaultCluster.
	BrokerClusterName string `prop:"brokerClusterName" default:"DefaultCluster" check:"name"`
	// BrokerName is shared by a master and its slaves. Default: the host name.
	BrokerName string `prop:"brokerName" default:"" check:"nameOrEmpty"`
	// BrokerID is 0 on a master; a master's setting is put to 0, as in RocketMQ. Default 0.
	BrokerID int64 `prop:"brokerId" default:"0" min:"0" max:"9223372036854775807"`
	// BrokerRole: ASYNC_MASTER (default) or SYNC_MASTER. SLAVE is refused until replication exists.
	BrokerRole string `prop:"brokerRole" default:"ASYNC_MASTER" oneof:"ASYNC_MASTER|SYNC_MASTER|SLAVE"`
	// InSyncReplicas is how many copies an acknowledgement of a SYNC_MASTER asks for, this broker's included.
	// 1..1000, default 1; more than 1 is refused until replication exists.
	InSyncReplicas int `prop:"inSyncReplicas" default:"1" min:"1" max:"1000"`
	// BrokerIP1 is the address told to clients. Default: found on this machine's interfaces.
	BrokerIP1 string `prop:"brokerIP1" default:"" check:"host"`
	// BrokerIP2 is the address told to slaves. Default: as brokerIP1.
	BrokerIP2 string `prop:"brokerIP2" default:"" check:"host"`
	// RegionID is put into messages as MSG_REGION and into the send response. Default DefaultRegion.
	RegionID string `prop:"regionId" default:"DefaultRegion"`
	// TraceOn is put into messages as TRACE_ON: clients may trace them. Default true.
	TraceOn bool `prop:"traceOn" default:"true"`

	// ---- Where it listens ----

	// BindAddress is the local address of all listeners. Default 0.0.0.0.
	BindAddress string `prop:"bindAddress" default:"0.0.0.0" check:"host"`
	// ListenPort is the port of clients. 0 (any free port) .. 65535, default 10911.
	ListenPort int `prop:"listenPort" default:"10911" min:"0" max:"65535"`
	// FastListenPort is the second port, which old clients call the VIP channel. -1: none; 0: listenPort-2; default 0.
	FastListenPort int `prop:"fastListenPort" default:"0" min:"-1" max:"65535"`
	// HaListenPort is the port of slaves. 0: listenPort+1; default 0.
	HaListenPort int `prop:"haListenPort" default:"0" min:"0" max:"65535"`
	// ServerSocketBacklog is the length of the accept queue. 1..65535, default 1024.
	ServerSocketBacklog int `prop:"serverSocketBacklog" default:"1024" min:"1" max:"65535"`
	// ServerChannelMaxIdleTimeSeconds: a connection silent for so long is closed. Seconds, 1..86400, default 120.
	ServerChannelMaxIdleTimeSeconds int `prop:"serverChannelMaxIdleTimeSeconds" default:"120" unit:"s" min:"1" max:"86400"`
	// FrameMaxLength is the longest frame accepted. Bytes, 64 KiB..1 GiB, default 16 MiB.
	FrameMaxLength int `prop:"frameMaxLength" default:"16777216" unit:"bytes" min:"65536" max:"1073741824"`
	// MaxConnections is how many connections are kept open at once. 1..10,000,000, default 100,000.
	MaxConnections int `prop:"maxConnections" default:"100000" min:"1" max:"10000000"`
	// MaxConnectionsPerAddress is the same for one peer address. 1..10,000,000, default 20,000.
	MaxConnectionsPerAddress int `prop:"maxConnectionsPerAddress" default:"20000" min:"1" max:"10000000"`
	// ProxyProtocol: accept (default) reads a PROXY v1 or v2 header where a connection begins with one, off takes it
	// for a damaged frame.
	ProxyProtocol string `prop:"proxyProtocol" default:"accept" oneof:"accept|off"`
	// MetricsListen is host:port of the Prometheus endpoint; empty: none. Default 127.0.0.1:5557.
	MetricsListen string `prop:"metricsListen" default:"127.0.0.1:5557" check:"listenOrEmpty"`

	// ---- Threads ----

	// Reactors is the number of network threads. 0 (half of the cores) .. 1024, default 0.
	Reactors int `prop:"reactors" default:"0" min:"0" max:"1024"`
	// ReactorCpus are the cores reactors are pinned to, such as 0-3,8; empty: none is pinned. Ignored on one or two cores.
	// Default empty.
	ReactorCpus string `prop:"reactorCpus" default:"" check:"cpus"`
	// ReactorRebalance moves connections from a network thread that is far busier than another. Default true.
	ReactorRebalance bool `prop:"reactorRebalance" default:"true"`
	// ReactorPoller is what network threads wait with. epoll; uring: io_uring, better with hundreds of connections; auto (default): what
	// `ringmq tune` found here, else epoll.
	ReactorPoller string `prop:"reactorPoller" default:"auto" oneof:"auto|epoll|uring"`

	// ---- Name servers ----

	// NamesrvAddr lists name servers, host:port separated by ";". Default empty: this broker registers nowhere.
	NamesrvAddr string `prop:"namesrvAddr" default:"" check:"addresses" hot:"1"`
	// RegisterNameServerPeriod is the time between registrations. Milliseconds, 1000..3600000, default 30000.
	RegisterNameServerPeriod int `prop:"registerNameServerPeriod" default:"30000" unit:"ms" min:"1000" max:"3600000" hot:"1"`
	// RegisterBrokerTimeoutMills is how long one registration may take. Milliseconds, 100..600000, default 24000.
	RegisterBrokerTimeoutMills int `prop:"registerBrokerTimeoutMills" default:"24000" unit:"ms" min:"100" max:"600000" hot:"1"`
	// BrokerHeartbeatInterval is the time between heartbeats to the name servers. Milliseconds, 100..600000, default 1000.
	BrokerHeartbeatInterval int `prop:"brokerHeartbeatInterval" default:"1000" unit:"ms" min:"100" max:"600000" hot:"1"`
	// BrokerNotActiveTimeoutMillis is the silence after which name servers drop this broker; sent with each
	// heartbeat. Milliseconds, 1000..3600000, default 10000.
	BrokerNotActiveTimeoutMillis int64 `prop:"brokerNotActiveTimeoutMillis" default:"10000" unit:"ms" min:"1000" max:"3600000" hot:"1"`
	// CompressedRegister deflates the registration body. Default false.
	CompressedRegister bool `prop:"compressedRegister" default:"false" hot:"1"`
	// EnableSplitRegistration sends many topics in several registrations. Default false.
	EnableSplitRegistration bool `prop:"enableSplitRegistration" default:"false"`
	// SplitRegistrationSize is the number of topics in one of these. 1..100000, default 800.
	SplitRegistrationSize int `prop:"splitRegistrationSize" default:"800" min:"1" max:"100000" hot:"1"`

	// ---- Topics and groups ----

	// BrokerPermission masks every topic's permission: 4 read, 2 write, 6 both (default), 0 neither.
	BrokerPermission int `prop:"brokerPermission" default:"6" min:"0" max:"7" hot:"1"`
	// AutoCreateTopicEnable creates a topic at its first message, from TBW102. Default true.
	AutoCreateTopicEnable bool `prop:"autoCreateTopicEnable" default:"true" hot:"1"`
	// AutoCreateSubscriptionGroup creates a consumer group at its first request. Default true.
	AutoCreateSubscriptionGroup bool `prop:"autoCreateSubscriptionGroup" default:"true" hot:"1"`
	// DefaultTopicQueueNums is the number of queues of a topic made that way. 1..1024, default 8.
	DefaultTopicQueueNums int `prop:"defaultTopicQueueNums" default:"8" min:"1" max:"1024" hot:"1"`
	// ClusterTopicEnable makes the topic named like the cluster writable. Default true.
	ClusterTopicEnable bool `prop:"clusterTopicEnable" default:"true"`
	// BrokerTopicEnable makes the topic named like the broker writable. Default true.
	BrokerTopicEnable bool `prop:"brokerTopicEnable" default:"true"`
	// TraceTopicEnable creates the trace topic at start. Default false.
	TraceTopicEnable bool `prop:"traceTopicEnable" default:"false"`
	// MsgTraceTopicName is the name of that topic. Default RMQ_SYS_TRACE_TOPIC.
	MsgTraceTopicName string `prop:"msgTraceTopicName" default:"RMQ_SYS_TRACE_TOPIC" check:"name"`
	// ValidateSystemTopicWhenUpdateTopic refuses to create or change topics named like system topics. Default true.
	ValidateSystemTopicWhenUpdateTopic bool `prop:"validateSystemTopicWhenUpdateTopic" default:"true" hot:"1"`
	// EnableMixedMessageType allows topics of type MIXED. Default false.
	EnableMixedMessageType bool `prop:"enableMixedMessageType" default:"false" hot:"1"`
	// ClearRetryTopicWhenDeleteTopic deletes a topic's retry topics with it. Default true.
	ClearRetryTopicWhenDeleteTopic bool `prop:"clearRetryTopicWhenDeleteTopic" default:"true" hot:"1"`

	// ---- Messages ----

	// MaxMessageSize is the longest body. Bytes, 1..512 MiB, default 4 MiB.
	MaxMessageSize int `prop:"maxMessageSize" default:"4194304" unit:"bytes" min:"1" max:"536870912" hot:"1"`
	// MessageDelayLevel lists the delays of levels 1, 2, ...: a number with s, m, h or d. Default RocketMQ's eighteen.
	MessageDelayLevel string `prop:"messageDelayLevel" default:"1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h" check:"delays"`
	// EnabledAppendPropCRC adds the property __CRC32#, a checksum of the whole record. Default false.
	EnabledAppendPropCRC bool `prop:"enabledAppendPropCRC" default:"false"`

	// ---- The log on disk ----

	// StorePathRootDir is the directory of everything stored. Default ringmq-data/store.
	StorePathRootDir string `prop:"storePathRootDir" default:"ringmq-data/store" check:"path"`
	// StorePathCommitLog is the directory of the CommitLog. Default storePathRootDir/commitlog.
	StorePathCommitLog string `prop:"storePathCommitLog" default:"" check:"singlePath"`
	// IoEngine is how the log is written. mmap: into mapped segments. pwrite: groups from memory, through the page cache. direct: past
	// it. uring: past it, several at a time. portable: plain calls and mappings, and sockets without epoll. auto (default): what
	// `ringmq tune` found here; else uring, or the next one that the system allows.
	IoEngine string `prop:"ioEngine" default:"auto" oneof:"auto|mmap|pwrite|direct|uring|portable"`
	// LogTailBytes is the memory that pwrite, direct and uring keep the end of the log in; readers within it need no disk.
	// Bytes, 32 MiB..64 GiB, default 128 MiB.
	LogTailBytes int64 `prop:"logTailBytes" default:"134217728" unit:"bytes" min:"33554432" max:"68719476736"`
	// ColdReadCacheBytes is the most memory for parts of the log that consumers read from the disk under the engines direct and uring; it is
	// given back after 30 s without. 0: they read through the page cache. Bytes, 0..16 GiB, at least 8 MiB if not 0, default 64 MiB.
	ColdReadCacheBytes int64 `prop:"coldReadCacheBytes" default:"67108864" unit:"bytes" min:"0" max:"17179869184"`
	// MappedFileSizeCommitLog is the size of one segment. Bytes, 64 KiB..2 GiB-1, default 1 GiB.
	MappedFileSizeCommitLog int64 `prop:"mappedFileSizeCommitLog" default:"1073741824" unit:"bytes" min:"65536" max:"2147483647"`
	// MappedFileSizeConsumeQueue is the size of one queue file, rounded up to whole entries of 20 bytes.
	// Bytes, 20..2 GiB-1, default 6000000.
	MappedFileSizeConsumeQueue int64 `prop:"mappedFileSizeConsumeQueue" default:"6000000" unit:"bytes" min:"20" max:"2147483640"`
	// FlushDiskType: ASYNC_FLUSH (default) acknowledges from the page cache, SYNC_FLUSH from the device.
	FlushDiskType string `prop:"flushDiskType" default:"ASYNC_FLUSH" oneof:"ASYNC_FLUSH|SYNC_FLUSH"`
	// FlushIntervalCommitLog is the time between flushes under ASYNC_FLUSH. Milliseconds, 1..60000, default 500.
	FlushIntervalCommitLog int `prop:"flushIntervalCommitLog" default:"500" unit:"ms" min:"1" max:"60000"`
	// AsyncFlushWindowMillis bounds the loss window of ASYNC_FLUSH: sends wait while the oldest unflushed byte is
	// older. Milliseconds, 1..3600000, default 1000.
	AsyncFlushWindowMillis int `prop:"asyncFlushWindowMillis" default:"1000" unit:"ms" min:"1" max:"3600000"`
	// SyncFlushTimeout: a SYNC_FLUSH send that waited longer is answered FLUSH_DISK_TIMEOUT. Milliseconds,
	// 1..600000, default 5000.
	SyncFlushTimeout int `prop:"syncFlushTimeout" default:"5000" unit:"ms" min:"1" max:"600000"`
	// AcceptEmptyMetadata starts with empty topics, groups or offsets where both generations of a metadata file are
	// damaged; without it the broker refuses to start. Default false.
	AcceptEmptyMetadata bool `prop:"acceptEmptyMetadata" default:"false"`

	// ---- The index ----

	// MessageIndexEnable keeps the index by key and unique key. Default true.
	MessageIndexEnable bool `prop:"messageIndexEnable" default:"true"`
	// MaxHashSlotNum is the number of hash slots of an index file. 1..100,000,000, default 5,000,000.
	MaxHashSlotNum int `prop:"maxHashSlotNum" default:"5000000" min:"1" max:"100000000"`
	// MaxIndexNum is the number of entries of an index file. 2..100,000,000, default 20,000,000.
	MaxIndexNum int `prop:"maxIndexNum" default:"20000000" min:"2" max:"100000000"`
	// DefaultQueryMaxNum is the most messages a query by key returns. 1..10000, default 32.
	DefaultQueryMaxNum int `prop:"defaultQueryMaxNum" default:"32" min:"1" max:"10000" hot:"1"`

	// ---- Retention ----

	// DeleteWhen lists the hours of the day, separated by ";", in which expired segments are deleted. Default 04.
	DeleteWhen string `prop:"deleteWhen" default:"04" check:"hours" hot:"1"`
	// FileReservedTime is how long a segment is kept. Hours, 1..876000, default 72.
	FileReservedTime int `prop:"fileReservedTime" default:"72" unit:"hours" min:"1" max:"876000" hot:"1"`
	// DiskMaxUsedSpaceRatio: above it expired segments go at any hour. Percent of the disk, 1..100, default 75.
	DiskMaxUsedSpaceRatio int `prop:"diskMaxUsedSpaceRatio" default:"75" unit:"percent" min:"1" max:"100" hot:"1"`
	// DiskSpaceCleanForciblyRatio: above it the oldest segments go even unexpired. Percent, 1..100, default 85.
	DiskSpaceCleanForciblyRatio int `prop:"diskSpaceCleanForciblyRatio" default:"85" unit:"percent" min:"1" max:"100" hot:"1"`
	// DiskSpaceWarningLevelRatio: above it sends are refused. Percent, 1..100, default 90.
	DiskSpaceWarningLevelRatio int `prop:"diskSpaceWarningLevelRatio" default:"90" unit:"percent" min:"1" max:"100" hot:"1"`
	// CleanResourceInterval is the time between looks at disk and expiry. Milliseconds, 100..3600000, default 10000.
	CleanResourceInterval int `prop:"cleanResourceInterval" default:"10000" unit:"ms" min:"100" max:"3600000"`
	// DeleteCommitLogFilesInterval is the pause between two deleted segments. Milliseconds, 1..60000, default 100.
	DeleteCommitLogFilesInterval int `prop:"deleteCommitLogFilesInterval" default:"100" unit:"ms" min:"1" max:"60000" hot:"1"`

	// ---- Pull ----

	// LongPollingEnable holds a pull that finds nothing. Default true.
	LongPollingEnable bool `prop:"longPollingEnable" default:"true" hot:"1"`
	// ShortPollingTimeMills is the hold time without long polling. Milliseconds, 0..60000, default 1000.
	ShortPollingTimeMills int64 `prop:"shortPollingTimeMills" default:"1000" unit:"ms" min:"0" max:"60000" hot:"1"`
	// MaxTransferBytesOnMessageInMemory bounds one pull's answer from memory. Bytes, 1 KiB..1 GiB, default 256 KiB.
	MaxTransferBytesOnMessageInMemory int `prop:"maxTransferBytesOnMessageInMemory" default:"262144" unit:"bytes" min:"1024" max:"1073741824" hot:"1"`
	// MaxTransferCountOnMessageInMemory bounds it in messages. 1..100000, default 32.
	MaxTransferCountOnMessageInMemory int `prop:"maxTransferCountOnMessageInMemory" default:"32" min:"1" max:"100000" hot:"1"`
	// MaxTransferBytesOnMessageInDisk bounds one pull's answer from disk. Bytes, 1 KiB..1 GiB, default 64 KiB.
	MaxTransferBytesOnMessageInDisk int `prop:"maxTransferBytesOnMessageInDisk" default:"65536" unit:"bytes" min:"1024" max:"1073741824" hot:"1"`
	// MaxTransferCountOnMessageInDisk bounds it in messages. 1..100000, default 8.
	MaxTransferCountOnMessageInDisk int `prop:"maxTransferCountOnMessageInDisk" default:"8" min:"1" max:"100000" hot:"1"`
	// AccessMessageInMemoryMaxRatio is the share of memory whose worth of newest log counts as "in memory" for the
	// four limits above. Percent, 1..100, default 40.
	AccessMessageInMemoryMaxRatio int `prop:"accessMessageInMemoryMaxRatio" default:"40" unit:"percent" min:"1" max:"100" hot:"1"`
	// MaxFilterMessageSize is how many bytes of queue entries one filtered pull looks through. Bytes, 20..1 MiB,
	// default 16000.
	MaxFilterMessageSize int `prop:"maxFilterMessageSize" default:"16000" unit:"bytes" min:"20" max:"1048576" hot:"1"`
	// SlaveReadEnable suggests a slave to consumers that read old messages. Default false.
	SlaveReadEnable bool `prop:"slaveReadEnable" default:"false" hot:"1"`
	// LitePullMessageEnable serves code 361. Default true.
	LitePullMessageEnable bool `prop:"litePullMessageEnable" default:"true" hot:"1"`

	// ---- Clients and offsets ----

	// NotifyConsumerIdsChangedEnable tells a group's members when one joins or leaves. Default true.
	NotifyConsumerIdsChangedEnable bool `prop:"notifyConsumerIdsChangedEnable" default:"true" hot:"1"`
	// ChannelExpiredTimeout: a client without heartbeat for so long is forgotten. Milliseconds, 1000..86400000,
	// default 120000.
	ChannelExpiredTimeout int64 `prop:"channelExpiredTimeout" default:"120000" unit:"ms" min:"1000" max:"86400000" hot:"1"`
	// FlushConsumerOffsetInterval is the time between writes of the consumer offsets. Milliseconds, 100..3600000,
	// default 5000.
	FlushConsumerOffsetInterval int `prop:"flushConsumerOffsetInterval" default:"5000" unit:"ms" min:"100" max:"3600000"`
	// UseServerSideResetOffset resets offsets in the broker, also for groups without a member online. Default true.
	UseServerSideResetOffset bool `prop:"useServerSideResetOffset" default:"true" hot:"1"`

	// ---- Run-time changes ----

	// ConfigBlackList names keys, separated by ";", that no request may change. Default configBlackList;brokerConfigPath.
	ConfigBlackList string `prop:"configBlackList" default:"configBlackList;brokerConfigPath"`

	TLS
}
