package netpath

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates in a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue gives a certificate for this machine, and its key as PKCS#8.
func (a *authority) issue(t testing.TB, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) client(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, "client"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// tlsFolder is a folder with the files of a server, and what the loader says and takes for the time.
type tlsFolder struct {
	t     testing.TB
	files TLSFiles
	time  time.Duration
	said  bytes.Buffer
}

func newTLSFolder(t testing.TB) *tlsFolder {
	dir := t.TempDir()
	return &tlsFolder{t: t, files: TLSFiles{KeyPath: filepath.Join(dir, "server.key"), CertPath: filepath.Join(dir, "server.pem")}}
}

func (d *tlsFolder) write(cert, key []byte) {
	d.t.Helper()
	for name, text := range map[string][]byte{d.files.CertPath: cert, d.files.KeyPath: key} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *tlsFolder) load() (*tls.Config, error) {
	log := slog.New(slog.NewTextHandler(&d.said, nil))
	return loadTLS(d.files, log, func() time.Duration { return d.time })
}

func (d *tlsFolder) mustLoad() *tls.Config {
	d.t.Helper()
	c, err := d.load()
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// expectSaid checks how often the log held a text since the last call.
func (d *tlsFolder) expectSaid(text string, times int) {
	d.t.Helper()
	if n := strings.Count(d.said.String(), text); n != times {
		d.t.Errorf("%q said %d times, want %d, in:\n%s", text, n, times, d.said.String())
	}
	d.said.Reset()
}

// handshake connects both ends by loopback and returns the name that the server's certificate carries. A refused client certificate
// shows in the first read only, so a byte is carried, too.
func handshake(t testing.TB, server, client *tls.Config) (name string, state tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = tls.Server(conn, server).Write([]byte{1})
		served <- err
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = io.ReadFull(conn, make([]byte, 1))
		state = conn.ConnectionState()
		name = state.PeerCertificates[0].Subject.CommonName
		conn.Close()
	}
	return name, state, errors.Join(err, <-served)
}

func TestTLSReload(t *testing.T) {
	ca, d := newAuthority(t), newTLSFolder(t)
	trusting := &tls.Config{RootCAs: ca.pool()}
	d.write(ca.issue(t, "first"))
	config := d.mustLoad()
	expect := func(want string) {
		t.Helper()
		if name, _, err := handshake(t, config, trusting); err != nil || name != want {
			t.Fatalf("served %q (%v), want %q", name, err, want)
		}
	}
	expect("first")

	secondCert, secondKey := ca.issue(t, "second")
	d.write(secondCert, secondKey)
	expect("first") // nobody looks twice within a second
	d.time += tlsLookEvery
	expect("second")
	d.expectSaid("TLS files read again", 1)

	// Files that are replaced one after the other do not belong together for a moment.
	thirdCert, thirdKey := ca.issue(t, "third")
	d.write(thirdCert, secondKey)
	for range 3 {
		d.time += tlsLookEvery
		expect("second")
	}
	d.expectSaid("changed TLS files cannot be used", 1)
	d.write(thirdCert, thirdKey)
	d.time += tlsLookEvery
	expect("third")
	d.expectSaid("TLS files read again", 1)

	if err := os.Remove(d.files.KeyPath); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.time += tlsLookEvery
		expect("third")
	}
	d.expectSaid("changed TLS files cannot be used", 1)
	d.write(secondCert, secondKey)
	d.time += tlsLookEvery
	expect("second")
}

// The content decides, not the time or the size of the file.
func TestTLSReloadSeesContent(t *testing.T) {
	ca, d := newAuthority(t), newTLSFolder(t)
	padded := func(name string) (cert, key []byte) {
		cert, key = ca.issue(t, name)
		return append(cert, bytes.Repeat([]byte{'\n'}, 4096-len(cert))...), append(key, bytes.Repeat([]byte{'\n'}, 4096-len(key))...)
	}
	same := time.Now().Add(-time.Hour)
	d.write(padded("first"))
	config := d.mustLoad()
	d.write(padded("other"))
	for _, name := range []string{d.files.KeyPath, d.files.CertPath} {
		if err := os.Chtimes(name, same, same); err != nil {
			t.Fatal(err)
		}
	}
	d.time += tlsLookEvery
	if name, _, err := handshake(t, config, &tls.Config{RootCAs: ca.pool()}); err != nil || name != "other" {
		t.Errorf("served %q (%v), want other", name, err)
	}
}

func TestTLSTestMode(t *testing.T) {
	d := &tlsFolder{t: t, files: TLSFiles{TestMode: true}}
	config := d.mustLoad()
	d.expectSaid("TLS test mode", 1)
	if name, _, err := handshake(t, config, &tls.Config{InsecureSkipVerify: true}); err != nil || name != "ringmq test mode" {
		t.Errorf("served %q: %v", name, err)
	}
	if _, _, err := handshake(t, config, &tls.Config{ServerName: "localhost"}); err == nil {
		t.Error("a client that checks certificates took a self-signed one")
	}
	d.files.TestMode = false
	if _, err := d.load(); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("without certificate and test mode: %v", err)
	}
	ca, d := newAuthority(t), newTLSFolder(t)
	d.files.TestMode = true
	d.write(ca.issue(t, "real"))
	if name, _, err := handshake(t, d.mustLoad(), &tls.Config{RootCAs: ca.pool()}); err != nil || name != "real" {
		t.Errorf("test mode with a certificate served %q: %v", name, err)
	}
}

func TestTLSClientAuth(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	for _, tt := range []struct {
		rule                  string
		auth                  string
		trust                 bool
		nobody, other, ourOwn bool // who is served
	}{
		{"none: nobody is asked", "none", true, true, true, true},
		{"optional: who shows one is checked", "optional", true, true, false, true},
		{"require: only ours", "require", true, false, false, true},
		{"optional without authorities: all", "optional", false, true, true, true},
		{"require without authorities: any certificate", "require", false, false, true, true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			d := newTLSFolder(t)
			d.write(ours.issue(t, "server"))
			d.files.ClientAuth = tt.auth
			if tt.trust {
				d.files.TrustCertPath = filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(d.files.TrustCertPath, ours.pem, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			config := d.mustLoad()
			warned := 0
			if !tt.trust {
				warned = 1
			}
			d.expectSaid("but any is taken", warned)
			// The client sends its certificate whatever the server asks for.
			show := func(c tls.Certificate) *tls.Config {
				return &tls.Config{RootCAs: ours.pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }}
			}
			for _, who := range []struct {
				name   string
				client *tls.Config
				served bool
			}{
				{"nobody", &tls.Config{RootCAs: ours.pool()}, tt.nobody}, {"other's", show(others.client(t)), tt.other}, {"ours", show(ours.client(t)), tt.ourOwn},
			} {
				if _, _, err := handshake(t, config, who.client); (err == nil) != who.served {
					t.Errorf("%s: %v, served should be %v", who.name, err, who.served)
				}
			}
		})
	}
}

// A client whose authority is no longer trusted is refused at its next connection, also if it could resume a session.
func TestTLSTrustReload(t *testing.T) {
	ca, former, d := newAuthority(t), newAuthority(t), newTLSFolder(t)
	d.write(ca.issue(t, "server"))
	d.files.ClientAuth, d.files.TrustCertPath = "require", filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(d.files.TrustCertPath, former.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	config := d.mustLoad()
	client := &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{former.client(t)}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	for range 2 {
		if _, _, err := handshake(t, config, client); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(d.files.TrustCertPath, ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	d.time += tlsLookEvery
	if _, _, err := handshake(t, config, client); err == nil {
		t.Error("served a client whose authority is not trusted any more")
	}
}

func TestTLSVersionsAndCiphers(t *testing.T) {
	const low, high = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"
	for _, tt := range []struct {
		protocols, ciphers string
		min, max           uint16
		fails              string
	}{
		{"", "", tls.VersionTLS12, tls.VersionTLS13, ""},
		{"TLSv1.2", "", tls.VersionTLS12, tls.VersionTLS12, ""},
		{" TLSv1.3 ,", "", tls.VersionTLS13, tls.VersionTLS13, ""},
		{"", low, tls.VersionTLS12, tls.VersionTLS12, ""},
		{"", high, tls.VersionTLS13, tls.VersionTLS13, ""},
		{"TLSv1.2,TLSv1.3", low + "," + high, tls.VersionTLS12, tls.VersionTLS13, ""},
		{"TLSv1.3", low, 0, 0, "no suite of tls.ciphers"},
		{"TLSv1.1", "", 0, 0, "tls.protocols names \"TLSv1.1\""},
		{"", "TLS_RSA_WITH_RC4_128_SHA", 0, 0, "unknown or unsafe"},
	} {
		t.Run(tt.protocols+"/"+tt.ciphers, func(t *testing.T) {
			d := &tlsFolder{t: t, files: TLSFiles{TestMode: true, Protocols: tt.protocols, Ciphers: tt.ciphers}}
			config, err := d.load()
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
				_, state, err := handshake(t, config, &tls.Config{InsecureSkipVerify: true, MinVersion: v, MaxVersion: v})
				if want := v >= tt.min && v <= tt.max; (err == nil) != want {
					t.Errorf("%s: %v, should be served: %v", tls.VersionName(v), err, want)
				} else if want && v == tls.VersionTLS12 && strings.Contains(tt.ciphers, low) && tls.CipherSuiteName(state.CipherSuite) != low {
					t.Errorf("%s chosen", tls.CipherSuiteName(state.CipherSuite))
				}
			}
		})
	}
}

func TestTLSErrorsNameFileAndCure(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "server")
	otherCert, _ := ca.issue(t, "other")
	for _, tt := range []struct {
		rule  string
		spoil func(d *tlsFolder)
		want  []string
	}{
		{"no such file", func(d *tlsFolder) { os.Remove(d.files.CertPath) }, []string{"server.pem", "tls.server.certPath"}},
		{"a folder", func(d *tlsFolder) { d.files.KeyPath = filepath.Dir(d.files.KeyPath) }, []string{"no regular file", "tls.server.keyPath"}},
		{"huge", func(d *tlsFolder) { d.write(make([]byte, maxTLSFile+1), key) }, []string{"server.pem", "no PEM file"}},
		{"no PEM in the certificate", func(d *tlsFolder) { d.write([]byte("x"), key) }, []string{"server.pem", "must be PEM"}},
		{"no PEM in the key", func(d *tlsFolder) { d.write(cert, []byte("x")) }, []string{"server.key", "must be PEM"}},
		{"swapped", func(d *tlsFolder) { d.write(key, cert) }, []string{"server.key", "no private key"}},
		{"do not belong together", func(d *tlsFolder) { d.write(otherCert, key) }, []string{"server.pem", "server.key", "the key's own"}},
		{"certificate alone", func(d *tlsFolder) { d.files.KeyPath = "" }, []string{"server.pem", "set tls.server.keyPath"}},
		{"key alone", func(d *tlsFolder) { d.files.CertPath = ""; d.files.TestMode = true }, []string{"server.key", "set tls.server.certPath"}},
		{"bad clientAuth", func(d *tlsFolder) { d.files.ClientAuth = "yes" }, []string{`"yes"`, "none, optional or require"}},
		{"no authorities", func(d *tlsFolder) { d.files.ClientAuth, d.files.TrustCertPath = "require", d.files.KeyPath }, []string{"server.key", "tls.server.trustCertPath"}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			d := newTLSFolder(t)
			d.write(cert, key)
			tt.spoil(d)
			_, err := d.load()
			if err == nil {
				t.Fatal("loaded")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

// The keys below are one throwaway key, written by openssl 3.0.19 (req -x509, pkcs8 -topk8, ec); the password is "secret".
func TestTLSKeyForms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	rsaCert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	cut := []byte(strings.Replace(keyPBES2, "MIHs", "MIHr", 1))
	for _, tt := range []struct {
		form, password string
		cert, key      []byte
		fails          string
	}{
		{"PKCS#1", "", rsaCert, pkcs1, ""},
		{"PKCS#8", "", []byte(keyCert), []byte(keyPKCS8), ""},
		{"SEC 1", "", []byte(keyCert), []byte(keySEC1), ""},
		{"behind other blocks", "", []byte(keyCert), []byte(keyCert + keyPKCS8), ""},
		{"a password that is not needed", "secret", []byte(keyCert), []byte(keyPKCS8), ""},
		{"PBES2, SHA-256, AES-256", "secret", []byte(keyCert), []byte(keyPBES2), ""},
		{"PBES2, SHA-1, AES-128", "secret", []byte(keyCert), []byte(keyPBES2SHA1), ""},
		{"Proc-Type header", "secret", []byte(keyCert), []byte(keyProcType), ""},
		{"PBES2 without a password", "", []byte(keyCert), []byte(keyPBES2), "tls.server.keyPassword"},
		{"PBES2, wrong password", "guess", []byte(keyCert), []byte(keyPBES2), "does not open"},
		{"Proc-Type header, wrong password", "guess", []byte(keyCert), []byte(keyProcType), "does not open"},
		{"Proc-Type header without a password", "", []byte(keyCert), []byte(keyProcType), "tls.server.keyPassword"},
		{"PKCS#12 scheme", "secret", []byte(keyCert), []byte(keyPBES1), "openssl pkcs8 -topk8 -v2"},
		{"damaged", "secret", []byte(keyCert), cut, "encrypted key"},
	} {
		t.Run(tt.form, func(t *testing.T) {
			d := newTLSFolder(t)
			d.write(tt.cert, tt.key)
			d.files.KeyPassword = tt.password
			config, err := d.load()
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) || !strings.Contains(err.Error(), "server.key") {
					t.Fatalf("got %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := handshake(t, config, &tls.Config{InsecureSkipVerify: true}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever stands in a key file, it is refused or read, in bounded time.
func FuzzOpenPKCS8(f *testing.F) {
	for _, text := range []string{keyPBES2, keyPBES2SHA1, keyPBES1} {
		block, _ := pem.Decode([]byte(text))
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		if plain, err := openPKCS8(der, "secret"); err == nil && len(plain) >= len(der) {
			t.Errorf("%d bytes out of %d", len(plain), len(der))
		}
	})
}

const (
	keyCert = `-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUH2y0x1iOLNA3zfqCG74s7iwaExUwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGZ29sZGVuMCAXDTI2MTEyMTE0MjAzOVoYDzIxMjYxMDI4MTQy
MDM5WjARMQ8wDQYDVQQDDAZnb2xkZW4wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATfjASVgrLosUYpVVUvU9RaPgpy2k5nu7I/YI+4XqZ7PNJUVbSSplwP/1B/wDxa
msrWlRXq5zfcyOBuH3Znfvp5o1MwUTAdBgNVHQ4EFgQU/SSv5HjkrOU55LMi4OCJ
iUUAdVcwHwYDVR0jBBgwFoAU/SSv5HjkrOU55LMi4OCJiUUAdVcwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiA8lJfxQd9bSf6KQCHGHkyqltt0Otd4
MaiWvWeoq6fufgIgMUE3S869KrsmcPoi6ZnqZEMP+C9EwFixlnatCQNXNOw=
-----END CERTIFICATE-----
`
	keyPKCS8 = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgC9xse+zMNW5ucLfC
ucfLkSkIWuILrDenaYcY0PCM7c+hRANCAATfjASVgrLosUYpVVUvU9RaPgpy2k5n
u7I/YI+4XqZ7PNJUVbSSplwP/1B/wDxamsrWlRXq5zfcyOBuH3Znfvp5
-----END PRIVATE KEY-----
`
	keySEC1 = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIAvcbHvszDVubnC3wrnHy5EpCFriC6w3p2mHGNDwjO3PoAoGCCqGSM49
AwEHoUQDQgAE34wElYKy6LFGKVVVL1PUWj4KctpOZ7uyP2CPuF6mezzSVFW0kqZc
D/9Qf8A8WprK1pUV6uc33Mjgbh92Z376eQ==
-----END EC PRIVATE KEY-----
`
	keyPBES2 = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiXjsWGJdM0CQICA+gw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEP0oG8rtXyjmrqKCL526gi0EgZAf
Wau364c52WQLAtMWtIk9p9rIaJy2qFm9WIpgKtdsYrEtAd3tnAf9Wuu3OTrrB8Oh
M4vQn0g3SLG9OfEUqgThslTvx6MXGilNqgq4PDGlyAkERXkMFIObkieBekqG/Y88
T1wtOxjmGRaGVHCLOFE1Ia9aHoGP6aJlBoLxrWbkydBDKmstQY4zLF5FtyW7QOE=
-----END ENCRYPTED PRIVATE KEY-----
`
	keyPBES2SHA1 = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHeMEkGCSqGSIb3DQEFDTA8MBsGCSqGSIb3DQEFDDAOBAi4rd9B9mW/cwICA+gw
HQYJYIZIAWUDBAECBBCN8U0FPKvN4cBep3MCZkgOBIGQ1CoFEfEPbapDn3Q1snX8
7fbu7MbrE46d82ER1vFT5b2wQVm3ZxxUVh16lY8GKLbMQ81ThcU5ZzJyegXmhxNt
82QSeSOapqS37DbD4L/1K9PxCGcBdWuC2zQxbpGi45Fjy2Xd4AqnRaSgAptIkzQk
3u++URgR4mVpN2VGXM08QcxP5OSWuZhS2p7aQqjducVe
-----END ENCRYPTED PRIVATE KEY-----
`
	keyPBES1 = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGxMBwGCiqGSIb3DQEMAQMwDgQI0D18CryUbPICAgPoBIGQ9r5SuBlnw+A/W44Q
tIi4kOCVRUzgASHjHO/3vcQoLa4DS0KNO5uIQOY7CX9PWAuEovKOyZavBI2jnIGr
jzhx2CfQxJT8kvWAysjuVrxLWL7MqPjwOAtj1zuzlghkKyImA9TttNMLCQygsIrN
VlJRsZPDGW3KWXCwSb0WS8Pvp73G6+PnELuzSTroGlGUdSa1
-----END ENCRYPTED PRIVATE KEY-----
`
	keyProcType = `-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,97391BECBDC2FBCCC59762DC5DEF33D3

ni0mVLd1eEhyHOCiJrxb65+WGIdlmQVQOiAtehjfY9I/a/od4SN1tVH9jChLwBJ4
xx0JRDLTGZSYt0gOZuRcwkVINRxSpA32Lb/MvY+CmVo4/c+4SyYAZ4x9mgsMwyxG
fNmbynd+3yUiPLA0/lQ7lNV7NSn6F8ep9QGEAP5sSGU=
-----END EC PRIVATE KEY-----
`
)
