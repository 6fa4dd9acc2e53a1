package netpath

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Both ends check each other's certificates: the right authority is let through, another one is not, on either side.
func TestClientTLSAgainstServerTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := ours.issue(t, "ours")
	files := TLSFiles{CertPath: write("s.pem", cert), KeyPath: write("s.key", key), ClientAuth: "require", AuthClient: true, TrustCertPath: write("ca.pem", ours.pem)}
	mode, server, err := ServerTLS("enforcing", files, slog.New(slog.DiscardHandler))
	if err != nil || mode != TLSEnforcing {
		t.Fatal(mode, err)
	}
	otherCert, otherKey := theirs.issue(t, "other")
	good := TLSClientFiles{CertPath: write("c.pem", cert), KeyPath: write("c.key", key), TrustCertPath: files.TrustCertPath, AuthServer: true}
	for _, tt := range []struct {
		rule   string
		change func(f *TLSClientFiles)
		refuse bool
	}{
		{"checked both ways", func(*TLSClientFiles) {}, false},
		{"the server is of another authority", func(f *TLSClientFiles) { f.TrustCertPath = write("other-ca.pem", theirs.pem) }, true},
		{"without a check of the server any will do", func(f *TLSClientFiles) { f.TrustCertPath, f.AuthServer = write("other-ca.pem", theirs.pem), false }, false},
		{"the client is of another authority", func(f *TLSClientFiles) { f.CertPath, f.KeyPath = write("o.pem", otherCert), write("o.key", otherKey) }, true},
		{"the client shows nothing", func(f *TLSClientFiles) { f.CertPath, f.KeyPath = "", "" }, true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			f := good
			tt.change(&f)
			c, err := ClientTLS(f)
			if err != nil {
				t.Fatal(err)
			}
			c.ServerName = "127.0.0.1"
			if _, _, err := handshake(t, server, c); (err != nil) != tt.refuse {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestClientTLSErrorsNameTheProperty(t *testing.T) {
	for want, f := range map[string]TLSClientFiles{
		"tls.client.trustCertPath": {AuthServer: true, TrustCertPath: "/nowhere/ca"},
		"set both or none":         {KeyPath: "/nowhere/key"},
		"tls.client.certPath":      {KeyPath: "tls.go", CertPath: "/nowhere/cert"},
		"tls.client.keyPath":       {KeyPath: "tls.go", CertPath: "tls.go"},
	} {
		if _, err := ClientTLS(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v", f, err)
		}
	}
}
