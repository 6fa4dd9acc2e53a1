package netpath

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
)

// ServerTLS turns tls.server.mode and its files into what Options takes. Under permissive a server without a certificate serves plain
// connections; under enforcing it must not start.
func ServerTLS(mode string, f TLSFiles, log *slog.Logger) (TLSMode, *tls.Config, error) {
	m := TLSPermissive
	switch mode {
	case "disabled":
		return TLSDisabled, nil, nil
	case "enforcing":
		m = TLSEnforcing
	}
	asked := f.ClientAuth == "optional" || f.ClientAuth == "require"
	switch {
	case !f.AuthClient:
		f.TrustCertPath = ""
	case !asked:
		f.TrustCertPath = ""
		log.Warn("tls.server.authClient=true has no effect: clients are not asked for a certificate; set tls.server.need.client.auth=require")
	case f.TrustCertPath == "":
		return m, nil, errors.New("tls.server.authClient is true, but no authority is trusted: set tls.server.trustCertPath")
	}
	loaded, err := LoadTLS(f, log)
	switch {
	case errors.Is(err, ErrNoCertificate) && m == TLSPermissive:
		log.Info("TLS is off: " + err.Error())
		return TLSDisabled, nil, nil
	case err != nil:
		return m, nil, fmt.Errorf("tls.server.mode is %s: %w", mode, err)
	}
	return m, loaded, nil
}

// TLSClientFiles say what this process shows and checks on connections that it opens (the tls.client.* keys).
type TLSClientFiles struct {
	KeyPath, KeyPassword, CertPath string
	// TrustCertPath are the authorities of server certificates, PEM. Empty: those of the system.
	TrustCertPath string
	// AuthServer checks the server's certificate. Without it, as with RocketMQ by default, the connection is
	// encrypted, but nobody knows to whom.
	AuthServer bool
	// Ciphers and Protocols are as in TLSFiles.
	Ciphers, Protocols string
}

// ClientTLS reads the files, once.
func ClientTLS(f TLSClientFiles) (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: !f.AuthServer}
	if err := setVersions(c, f.Protocols); err != nil {
		return nil, err
	}
	if err := setCiphers(c, f.Ciphers); err != nil {
		return nil, err
	}
	if f.AuthServer && f.TrustCertPath != "" {
		text, err := readTLSFile(f.TrustCertPath)
		if err != nil {
			return nil, fmt.Errorf("%w; it is named by tls.client.trustCertPath", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s (tls.client.trustCertPath) holds no certificate: it must be PEM, the authorities of the servers", f.TrustCertPath)
		}
	}
	if f.KeyPath == "" && f.CertPath == "" {
		return c, nil
	}
	if f.KeyPath == "" || f.CertPath == "" {
		return nil, errors.New("tls.client.keyPath and tls.client.certPath belong together: set both or none")
	}
	cert, err := readTLSFile(f.CertPath)
	if err != nil {
		return nil, fmt.Errorf("%w; it is named by tls.client.certPath", err)
	}
	key, err := readTLSFile(f.KeyPath)
	if err != nil {
		return nil, fmt.Errorf("%w; it is named by tls.client.keyPath", err)
	}
	if key, err = plainKey(key, f.KeyPassword); err != nil {
		return nil, fmt.Errorf("%s (tls.client.keyPath): %w", f.KeyPath, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s (tls.client.certPath) with the key %s: %w", f.CertPath, f.KeyPath, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
