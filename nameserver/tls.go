package nameserver

import (
	"crypto/tls"
	"log/slog"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/netpath"
)

func serverTLS(c *config.TLS, log *slog.Logger) (netpath.TLSMode, *tls.Config, error) {
	return netpath.ServerTLS(c.TLSServerMode, netpath.TLSFiles{
		KeyPath: c.TLSServerKeyPath, KeyPassword: c.TLSServerKeyPassword, CertPath: c.TLSServerCertPath, TrustCertPath: c.TLSServerTrustCertPath,
		ClientAuth: c.TLSServerNeedClientAuth, AuthClient: c.TLSServerAuthClient, TestMode: c.TLSTestModeEnable,
		Ciphers: c.TLSCiphers, Protocols: c.TLSProtocols,
	}, log)
}

// clientTLS is for notices to brokers; nil without tls.enable.
func clientTLS(c *config.TLS) (*tls.Config, error) {
	if !c.TLSEnable {
		return nil, nil
	}
	return netpath.ClientTLS(netpath.TLSClientFiles{
		KeyPath: c.TLSClientKeyPath, KeyPassword: c.TLSClientKeyPassword, CertPath: c.TLSClientCertPath,
		TrustCertPath: c.TLSClientTrustCertPath, AuthServer: c.TLSClientAuthServer, Ciphers: c.TLSCiphers, Protocols: c.TLSProtocols,
	})
}
