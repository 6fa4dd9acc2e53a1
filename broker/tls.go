package broker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/netpath"
)

// tlsOf turns the tls.* keys into what the network server takes. Under permissive a server without a certificate serves plain
// connections; under enforcing it must not start.
func tlsOf(c *config.TLS, log *slog.Logger) (netpath.TLSMode, *tls.Config, error) {
	mode := netpath.TLSPermissive
	switch c.TLSServerMode {
	case "disabled":
		return netpath.TLSDisabled, nil, nil
	case "enforcing":
		mode = netpath.TLSEnforcing
	}
	files := netpath.TLSFiles{
		KeyPath: c.TLSServerKeyPath, KeyPassword: c.TLSServerKeyPassword, CertPath: c.TLSServerCertPath, ClientAuth: c.TLSServerNeedClientAuth,
		TestMode: c.TLSTestModeEnable, Ciphers: c.TLSCiphers, Protocols: c.TLSProtocols,
	}
	asked := c.TLSServerNeedClientAuth == "optional" || c.TLSServerNeedClientAuth == "require"
	switch {
	case c.TLSServerAuthClient && !asked:
		log.Warn("tls.server.authClient=true has no effect: clients are not asked for a certificate; set tls.server.need.client.auth=require")
	case c.TLSServerAuthClient && c.TLSServerTrustCertPath == "":
		return mode, nil, errors.New("tls.server.authClient is true, but no authority is trusted: set tls.server.trustCertPath")
	case c.TLSServerAuthClient:
		files.TrustCertPath = c.TLSServerTrustCertPath
	}
	loaded, err := netpath.LoadTLS(files, log)
	switch {
	case errors.Is(err, netpath.ErrNoCertificate) && mode == netpath.TLSPermissive:
		log.Info("TLS is off: " + err.Error())
		return netpath.TLSDisabled, nil, nil
	case err != nil:
		return mode, nil, fmt.Errorf("tls.server.mode is %s: %w", c.TLSServerMode, err)
	}
	return mode, loaded, nil
}
