package config

// TLS are the tls.* keys, which both processes have. Does the work of TlsSystemConfig.
//
// RocketMQ takes them from system properties and from a file of their own; here they may stand in the process's
// properties file, too.
type TLS struct {
	// TLSServerMode: disabled refuses TLS, permissive (default) serves both, enforcing refuses plain connections.
	TLSServerMode string `prop:"tls.server.mode" default:"permissive" oneof:"disabled|permissive|enforcing"`
	// TLSConfigFile is a properties file with the tls.* keys below; a missing default file is no error.
	// Default /etc/rocketmq/tls.properties.
	TLSConfigFile string `prop:"tls.config.file" default:"/etc/rocketmq/tls.properties"`
	// TLSTestModeEnable serves a self-signed certificate where no certificate is set. Default true.
	TLSTestModeEnable bool `prop:"tls.test.mode.enable" default:"true"`
	// TLSServerNeedClientAuth: none (default), optional or require a client's certificate.
	TLSServerNeedClientAuth string `prop:"tls.server.need.client.auth" default:"none" oneof:"none|optional|require"`
	// TLSServerKeyPath is the server's private key, PEM. Default empty.
	TLSServerKeyPath string `prop:"tls.server.keyPath" default:""`
	// TLSServerKeyPassword decrypts that key. Default empty.
	TLSServerKeyPassword string `prop:"tls.server.keyPassword" default:"" secret:"1"`
	// TLSServerCertPath is the server's certificate chain, PEM. Default empty.
	TLSServerCertPath string `prop:"tls.server.certPath" default:""`
	// TLSServerAuthClient checks client certificates against tls.server.trustCertPath. Default false.
	TLSServerAuthClient bool `prop:"tls.server.authClient" default:"false"`
	// TLSServerTrustCertPath are the authorities of client certificates, PEM. Default empty.
	TLSServerTrustCertPath string `prop:"tls.server.trustCertPath" default:""`
	// TLSEnable uses TLS on connections that this process opens, to name servers for instance. Default false.
	TLSEnable bool `prop:"tls.enable" default:"false"`
	// TLSClientKeyPath is the private key shown on those. Default empty.
	TLSClientKeyPath string `prop:"tls.client.keyPath" default:""`
	// TLSClientKeyPassword decrypts that key. Default empty.
	TLSClientKeyPassword string `prop:"tls.client.keyPassword" default:"" secret:"1"`
	// TLSClientCertPath is the certificate chain shown on those. Default empty.
	TLSClientCertPath string `prop:"tls.client.certPath" default:""`
	// TLSClientAuthServer checks the certificate of the server called. Default false.
	TLSClientAuthServer bool `prop:"tls.client.authServer" default:"false"`
	// TLSClientTrustCertPath are the authorities of server certificates, PEM. Default empty.
	TLSClientTrustCertPath string `prop:"tls.client.trustCertPath" default:""`
	// TLSCiphers lists cipher suites, separated by ","; empty: Go's choice. Default empty.
	TLSCiphers string `prop:"tls.ciphers" default:""`
	// TLSProtocols lists protocol versions such as TLSv1.2,TLSv1.3; empty: Go's choice. Default empty.
	TLSProtocols string `prop:"tls.protocols" default:"" check:"tlsProtocols"`
}
