package nameserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/netpath"
)

// serverTLS reads the tls.* keys. As with Java, permissive mode without anything to show serves plain connections only.
func serverTLS(c *config.TLS, log *slog.Logger) (netpath.TLSMode, *tls.Config, error) {
	mode := netpath.TLSPermissive
	switch c.TLSServerMode {
	case "disabled":
		return netpath.TLSDisabled, nil, nil
	case "enforcing":
		mode = netpath.TLSEnforcing
	}
	files := netpath.TLSFiles{
		KeyPath: c.TLSServerKeyPath, KeyPassword: c.TLSServerKeyPassword, CertPath: c.TLSServerCertPath,
		ClientAuth: c.TLSServerNeedClientAuth, TestMode: c.TLSTestModeEnable, Ciphers: c.TLSCiphers, Protocols: c.TLSProtocols,
	}
	if c.TLSServerAuthClient {
		files.TrustCertPath = c.TLSServerTrustCertPath
	}
	loaded, err := netpath.LoadTLS(files, log)
	switch {
	case err == nil:
		return mode, loaded, nil
	case errors.Is(err, netpath.ErrNoCertificate) && mode == netpath.TLSPermissive:
		log.Info("no TLS: there is no certificate", "process", "name server")
		return netpath.TLSDisabled, nil, nil
	}
	return 0, nil, fmt.Errorf("name server: %w", err)
}
