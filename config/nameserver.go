package config

import "errors"

// NameServer is everything that can be set for a name server. Does the work of NamesrvConfig and NettyServerConfig.
type NameServer struct {
	// BindAddress is the local address of the listener. Default 0.0.0.0.
	BindAddress string `prop:"bindAddress" default:"0.0.0.0" check:"host"`
	// ListenPort is the port of brokers and clients. 0 (any free port) .. 65535, default 9876.
	ListenPort int `prop:"listenPort" default:"9876" min:"0" max:"65535"`
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
	// Reactors is the number of network threads. 0 (the name server decides) .. 1024, default 0.
	Reactors int `prop:"reactors" default:"0" min:"0" max:"1024"`

	// KvConfigPath is the JSON file of the KV configuration. Default ringmq-data/namesrv/kvConfig.json.
	KvConfigPath string `prop:"kvConfigPath" default:"ringmq-data/namesrv/kvConfig.json" check:"path"`
	// ConfigStorePath is the properties file that run-time changes are written to when the process was started
	// without -c. Default ringmq-data/namesrv/namesrv.properties.
	ConfigStorePath string `prop:"configStorePath" default:"ringmq-data/namesrv/namesrv.properties" check:"path"`
	// AcceptEmptyMetadata starts with an empty KV configuration where both generations of its file are damaged; without
	// it the name server refuses to start. Default false.
	AcceptEmptyMetadata bool `prop:"acceptEmptyMetadata" default:"false"`

	// ClusterTest answers unknown topics with those of another name server, in RocketMQ's own test environment;
	// here only false is accepted. Default false.
	ClusterTest bool `prop:"clusterTest" default:"false"`
	// OrderMessageEnable adds a topic's order configuration to its route. Default false.
	OrderMessageEnable bool `prop:"orderMessageEnable" default:"false" hot:"1"`
	// ReturnOrderTopicConfigToBroker answers registrations with the order configuration of all topics. Default true.
	ReturnOrderTopicConfigToBroker bool `prop:"returnOrderTopicConfigToBroker" default:"true" hot:"1"`
	// SupportActingMaster lets the slave with the lowest id stand in routes for a master that is gone. Default false.
	SupportActingMaster bool `prop:"supportActingMaster" default:"false" hot:"1"`
	// NotifyMinBrokerIDChanged tells brokers when the lowest id of their group changes. Default false.
	NotifyMinBrokerIDChanged bool `prop:"notifyMinBrokerIdChanged" default:"false" hot:"1"`
	// NeedWaitForService answers no route requests for waitSecondsForService after the start. Default false.
	NeedWaitForService bool `prop:"needWaitForService" default:"false" hot:"1"`
	// WaitSecondsForService is that time. Seconds, 0..86400, default 45.
	WaitSecondsForService int `prop:"waitSecondsForService" default:"45" unit:"s" min:"0" max:"86400" hot:"1"`
	// EnableAllTopicList serves the list of all topics. Default true.
	EnableAllTopicList bool `prop:"enableAllTopicList" default:"true" hot:"1"`
	// EnableTopicList serves the lists by cluster and unit. Default true.
	EnableTopicList bool `prop:"enableTopicList" default:"true" hot:"1"`
	// ScanNotActiveBrokerInterval is the time between looks for silent brokers. Milliseconds, 10..3600000, default 5000.
	ScanNotActiveBrokerInterval int64 `prop:"scanNotActiveBrokerInterval" default:"5000" unit:"ms" min:"10" max:"3600000"`
	// DeleteTopicWithBrokerRegistration drops topics that a broker's registration no longer names. Default false.
	DeleteTopicWithBrokerRegistration bool `prop:"deleteTopicWithBrokerRegistration" default:"false" hot:"1"`

	// ConfigBlackList names keys, separated by ";", that no request may change. Default
	// configBlackList;configStorePath;kvConfigPath.
	ConfigBlackList string `prop:"configBlackList" default:"configBlackList;configStorePath;kvConfigPath"`

	TLS
}

// DefaultNameServer returns the values in force without any configuration.
func DefaultNameServer() *NameServer {
	n := new(NameServer)
	mustSetDefaults(n)
	return n
}

// NameServerKeys returns the table behind [NameServer], in the order of its fields.
func NameServerKeys() []Key { return keysOf(new(NameServer)) }

// LoadNameServer builds a name server's configuration.
func LoadNameServer(src Source) (*Live[NameServer], error) {
	return load(src, "name server", (*NameServer).settle, (*NameServer).runtimeFile)
}

func (n *NameServer) runtimeFile() string { return n.ConfigStorePath }

// settle fills in automatic values and checks values against each other.
func (n *NameServer) settle() error {
	if n.ClusterTest {
		return errors.New("clusterTest=true asks another name server for unknown topics, which ringmq does not do: remove the key")
	}
	return nil
}
