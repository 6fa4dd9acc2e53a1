package netpath

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// TLSFiles say what a server shows in a TLS handshake and what it asks for. Does the work of TlsHelper.
type TLSFiles struct {
	// KeyPath is the private key, PEM: PKCS#1, PKCS#8 or SEC 1. KeyPassword opens an encrypted one: PKCS#8 with PBES2 (PBKDF2 and
	// AES-CBC, what openssl writes), or the old form with a Proc-Type header. Not supported are PKCS#8 with PBES1 or a PKCS#12 scheme
	// (openssl pkcs8 -v1 ...), scrypt, and Java key stores.
	KeyPath, KeyPassword string
	// CertPath is the certificate chain, PEM, the server's own first.
	CertPath string
	// TrustCertPath are the authorities of client certificates, PEM. Empty: any certificate that a client shows is taken, which
	// proves nothing; said in the log when clients are asked for one.
	TrustCertPath string
	// ClientAuth: none (also ""), optional or require a client's certificate.
	ClientAuth string
	// AuthClient has ServerTLS check client certificates against TrustCertPath.
	AuthClient bool
	// TestMode makes a self-signed certificate where KeyPath and CertPath are empty.
	TestMode bool
	// Ciphers are names of cipher suites, Protocols of versions, each separated by ","; empty: Go's choice. Suites of TLS 1.3 are not
	// chosen one by one: naming one allows TLS 1.3, naming none of them while others are named forbids it.
	Ciphers, Protocols string
}

// ErrNoCertificate is a server that has nothing to show.
var ErrNoCertificate = errors.New("no certificate: set tls.server.certPath and tls.server.keyPath, or tls.test.mode.enable=true")

const (
	// tlsLookEvery is how often, at most, the files are looked at. A handshake looks; without handshakes nobody does.
	tlsLookEvery = time.Second
	// maxTLSFile bounds the size of each file.
	maxTLSFile = 1 << 20
)

// LoadTLS reads the files and returns a server's configuration for Options.TLSConfig. It reads them again when their content changes,
// looking at most once a second, within a handshake: there is no goroutine and nothing to close. Files that have become bad leave the
// certificate in force as it is, and are complained of once.
func LoadTLS(f TLSFiles, log *slog.Logger) (*tls.Config, error) {
	start := time.Now()
	return loadTLS(f, log, func() time.Duration { return time.Since(start) })
}

// tlsKeeper holds the configuration in force. Handshakes run on goroutines of their own, so reading files in one holds up no reactor.
type tlsKeeper struct {
	files TLSFiles
	log   *slog.Logger
	now   func() time.Duration // monotonic
	frame *tls.Config          // what does not come from files

	current  atomic.Pointer[tls.Config]
	nextLook atomic.Int64 // ns of now

	mu sync.Mutex // one look at a time; guards seen
	// seen marks what was last found, and loaded or complained of: the content, or the error in reading it.
	seen [sha256.Size]byte
}

func loadTLS(f TLSFiles, log *slog.Logger, now func() time.Duration) (*tls.Config, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &tlsKeeper{files: f, log: log, now: now, frame: &tls.Config{}}
	if err := k.setFrame(); err != nil {
		return nil, err
	}
	switch {
	case f.KeyPath == "" && f.CertPath == "" && !f.TestMode:
		return nil, ErrNoCertificate
	case f.KeyPath == "" && f.CertPath == "":
		if err := k.makeTestCertificate(); err != nil {
			return nil, err
		}
	case f.KeyPath == "":
		return nil, fmt.Errorf("tls.server.certPath is %s, but there is no key to it: set tls.server.keyPath", f.CertPath)
	case f.CertPath == "":
		return nil, fmt.Errorf("tls.server.keyPath is %s, but there is no certificate to it: set tls.server.certPath", f.KeyPath)
	}
	texts, err := k.read()
	if err != nil {
		return nil, err
	}
	config, err := k.build(texts)
	if err != nil {
		return nil, err
	}
	k.seen = texts.mark()
	k.current.Store(config)
	k.nextLook.Store(int64(now() + tlsLookEvery))
	return &tls.Config{
		MinVersion: k.frame.MinVersion, MaxVersion: k.frame.MaxVersion,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return k.config(), nil },
	}, nil
}

// config is the configuration for one handshake.
func (k *tlsKeeper) config() *tls.Config {
	if next := k.nextLook.Load(); int64(k.now()) >= next && k.mu.TryLock() {
		k.look()
		k.nextLook.Store(int64(k.now() + tlsLookEvery))
		k.mu.Unlock()
	}
	return k.current.Load()
}

// look reads the files again. They are a few kilobytes, so their content is compared, which no clock and no file system can spoil.
func (k *tlsKeeper) look() {
	texts, err := k.read()
	mark := texts.mark()
	if err != nil {
		mark = sha256.Sum256([]byte(err.Error()))
	}
	if mark == k.seen {
		return
	}
	k.seen = mark
	var config *tls.Config
	if err == nil {
		config, err = k.build(texts)
	}
	if err != nil {
		k.log.Error("changed TLS files cannot be used: the certificate in force stays until they are mended", "err", err)
		return
	}
	k.current.Store(config)
	k.log.Info("TLS files read again: new connections use them", "cert", k.files.CertPath, "key", k.files.KeyPath, "trust", k.files.TrustCertPath)
}

// tlsTexts is the content of the files; nil where there is no file.
type tlsTexts struct{ key, cert, trust []byte }

func (k *tlsKeeper) read() (t tlsTexts, err error) {
	for _, part := range []struct {
		text       *[]byte
		name, prop string
	}{
		{&t.key, k.files.KeyPath, "tls.server.keyPath"}, {&t.cert, k.files.CertPath, "tls.server.certPath"},
		{&t.trust, k.files.TrustCertPath, "tls.server.trustCertPath"},
	} {
		if part.name == "" {
			continue
		}
		if *part.text, err = readTLSFile(part.name); err != nil {
			return t, fmt.Errorf("%w; it is named by %s", err, part.prop)
		}
	}
	return t, nil
}

func readTLSFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTLSFile+1))
	if err == nil && len(text) > maxTLSFile {
		err = fmt.Errorf("%s has more than %d bytes: it is no PEM file of a key or certificate", name, maxTLSFile)
	}
	return text, err
}

func (t tlsTexts) mark() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, text := range [][]byte{t.key, t.cert, t.trust} {
		fmt.Fprintf(h, "%d:", len(text))
		h.Write(text)
	}
	h.Sum(sum[:0])
	return sum
}

// build makes the configuration of these files.
func (k *tlsKeeper) build(t tlsTexts) (*tls.Config, error) {
	c := k.frame.Clone()
	if t.cert != nil {
		pair, err := k.pair(t)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if t.trust != nil && c.ClientAuth != tls.NoClientCert {
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(t.trust) {
			return nil, fmt.Errorf("%s (tls.server.trustCertPath) holds no certificate: it must be PEM, the authorities of the clients", k.files.TrustCertPath)
		}
	}
	return c, nil
}

func (k *tlsKeeper) pair(t tlsTexts) (tls.Certificate, error) {
	f := &k.files
	key, err := plainKey(t.key, f.KeyPassword)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s (tls.server.keyPath): %w", f.KeyPath, err)
	}
	pair, err := tls.X509KeyPair(t.cert, key)
	if err != nil {
		return pair, fmt.Errorf("%s (tls.server.certPath) with the key %s: %w; both must be PEM, and the first certificate the key's own",
			f.CertPath, f.KeyPath, err)
	}
	if now := time.Now(); now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		k.log.Warn("the TLS certificate is not valid today: clients that check it will refuse this server", "cert", f.CertPath,
			"notBefore", pair.Leaf.NotBefore, "notAfter", pair.Leaf.NotAfter)
	}
	return pair, nil
}

// setFrame works out versions, suites and what is asked of clients.
func (k *tlsKeeper) setFrame() error {
	f, c := &k.files, k.frame
	verify := f.TrustCertPath != ""
	switch f.ClientAuth {
	case "", "none":
	case "optional":
		c.ClientAuth = tls.RequestClientCert
		if verify {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
	case "require":
		c.ClientAuth = tls.RequireAnyClientCert
		if verify {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
	default:
		return fmt.Errorf("tls.server.need.client.auth is %q: write none, optional or require", f.ClientAuth)
	}
	if c.ClientAuth != tls.NoClientCert && !verify {
		k.log.Warn("clients are asked for a certificate, but any is taken: set tls.server.authClient=true and tls.server.trustCertPath")
	}
	// A resumed session would skip the check against authorities that have changed since. Connections live long: little is lost.
	c.SessionTicketsDisabled = verify
	if err := setVersions(c, f.Protocols); err != nil {
		return err
	}
	return setCiphers(c, f.Ciphers)
}

func setVersions(c *tls.Config, names string) error {
	c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS13
	known := map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}
	var chosen []uint16
	for name := range splitList(names) {
		v, ok := known[name]
		if !ok {
			return fmt.Errorf("tls.protocols names %q: write TLSv1.2, TLSv1.3 or both, separated by \",\"", name)
		}
		chosen = append(chosen, v)
	}
	if len(chosen) > 0 {
		c.MinVersion, c.MaxVersion = slices.Min(chosen), slices.Max(chosen)
	}
	return nil
}

// setCiphers is called after setVersions, and narrows its choice.
func setCiphers(c *tls.Config, names string) error {
	known := map[string]*tls.CipherSuite{}
	for _, s := range tls.CipherSuites() {
		known[s.Name] = s
	}
	low, high := false, false // a suite for TLS 1.2, for TLS 1.3
	for name := range splitList(names) {
		s := known[name]
		switch {
		case s == nil:
			return fmt.Errorf("tls.ciphers names %q, which is unknown or unsafe: choose from %s", name, strings.Join(cipherNames(), ","))
		case slices.Contains(s.SupportedVersions, tls.VersionTLS12):
			low = true
			c.CipherSuites = append(c.CipherSuites, s.ID)
		default:
			high = true
		}
	}
	switch {
	case low && !high:
		c.MaxVersion = tls.VersionTLS12
	case high && !low:
		c.MinVersion = tls.VersionTLS13
	}
	if c.MinVersion > c.MaxVersion {
		return errors.New("no suite of tls.ciphers belongs to a version of tls.protocols: name one of each version, or leave one of them empty")
	}
	return nil
}

func cipherNames() (names []string) {
	for _, s := range tls.CipherSuites() {
		names = append(names, s.Name)
	}
	return names
}

// splitList gives the names of a list separated by ",".
func splitList(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name != "" && !yield(name) {
				return
			}
		}
	}
}

// makeTestCertificate puts a self-signed certificate into the frame. Clients that check certificates refuse it.
func (k *tlsKeeper) makeTestCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key for TLS test mode: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("make a certificate for TLS test mode: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "ringmq test mode"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make a certificate for TLS test mode: %w", err)
	}
	k.frame.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	sum := sha256.Sum256(der)
	k.log.Info("TLS test mode: a self-signed certificate was made for this run, which proves nothing to clients; "+
		"set tls.server.certPath and tls.server.keyPath", "sha256", hex.EncodeToString(sum[:]))
	return nil
}

// plainKey finds the private key in a PEM text and decrypts it where needed.
func plainKey(text []byte, password string) ([]byte, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("no private key in it: it must be PEM, PKCS#8 or PKCS#1")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		der, kind := block.Bytes, block.Type
		var err error
		switch {
		case kind == "ENCRYPTED PRIVATE KEY" && password == "", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") && password == "":
			return nil, errors.New("the key is encrypted: set its password (tls.server.keyPassword or tls.client.keyPassword)")
		case kind == "ENCRYPTED PRIVATE KEY":
			der, err = openPKCS8(der, password)
			kind = "PRIVATE KEY"
		case strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			//lint:ignore SA1019 it opens keys that exist; the file's own secrecy does not rest on it alone
			der, err = x509.DecryptPEMBlock(block, []byte(password))
			if errors.Is(err, x509.IncorrectPasswordError) {
				err = errKeyPassword
			}
		}
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
	}
}

var errKeyPassword = errors.New("the password (tls.server.keyPassword or tls.client.keyPassword) does not open the key")

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	// hmacs are the pseudo random functions of PBKDF2; no name means SHA-1.
	hmacs = map[string]func() hash.Hash{
		"": sha1.New, "1.2.840.113549.2.7": sha1.New, "1.2.840.113549.2.8": sha256.New224, "1.2.840.113549.2.9": sha256.New,
		"1.2.840.113549.2.10": sha512.New384, "1.2.840.113549.2.11": sha512.New,
	}
	// aesCBC are the lengths of the keys of AES-CBC in bytes.
	aesCBC = map[string]int{"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
)

// maxKeyIterations bounds what a key file may make us calculate, to about a second.
const maxKeyIterations = 2_000_000

// openPKCS8 decrypts a PKCS#8 key (RFC 5958) that is encrypted by PBES2 (RFC 8018) with PBKDF2 and AES-CBC.
func openPKCS8(der []byte, password string) ([]byte, error) {
	var sealed struct {
		Scheme pkix.AlgorithmIdentifier
		Data   []byte
	}
	var scheme struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	var kdf struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	var iv []byte
	if _, err := asn1.Unmarshal(der, &sealed); err != nil {
		return nil, fmt.Errorf("read the encrypted key: %w", err)
	}
	if !sealed.Scheme.Algorithm.Equal(oidPBES2) {
		return nil, errKeyScheme(sealed.Scheme.Algorithm)
	}
	if _, err := asn1.Unmarshal(sealed.Scheme.Parameters.FullBytes, &scheme); err != nil {
		return nil, fmt.Errorf("read how the key is encrypted: %w", err)
	}
	if !scheme.KDF.Algorithm.Equal(oidPBKDF2) {
		return nil, errKeyScheme(scheme.KDF.Algorithm)
	}
	if _, err := asn1.Unmarshal(scheme.KDF.Parameters.FullBytes, &kdf); err != nil {
		return nil, fmt.Errorf("read how the key's password is used: %w", err)
	}
	newHash, ok := hmacs[kdf.PRF.Algorithm.String()]
	if !ok {
		return nil, errKeyScheme(kdf.PRF.Algorithm)
	}
	size, ok := aesCBC[scheme.Cipher.Algorithm.String()]
	if !ok {
		return nil, errKeyScheme(scheme.Cipher.Algorithm)
	}
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != aes.BlockSize ||
		kdf.Iterations < 1 || kdf.Iterations > maxKeyIterations || len(sealed.Data) == 0 || len(sealed.Data)%aes.BlockSize != 0 {
		return nil, errors.New("the encrypted key is damaged: its parameters are impossible")
	}
	key, err := pbkdf2.Key(newHash, password, kdf.Salt, kdf.Iterations, size)
	if err != nil {
		return nil, fmt.Errorf("derive the key from tls.server.keyPassword: %w", err)
	}
	return openCBC(key, iv, sealed.Data)
}

func openCBC(key, iv, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("decrypt the key: %w", err)
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.Equal(plain[len(plain)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errKeyPassword
	}
	return plain[:len(plain)-pad], nil
}

func errKeyScheme(oid asn1.ObjectIdentifier) error {
	return fmt.Errorf("the key is encrypted in a way that is not supported (%s): write it anew with openssl pkcs8 -topk8 -v2 aes-256-cbc", oid)
}
