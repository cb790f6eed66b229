package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// TestEveryKindOfLogin runs a node and client commands on NATS servers that ask who they are.
func TestEveryKindOfLogin(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	nkey, nkeyPublic := newNKey(t, filepath.Join(dir, "user.nk"))
	creds, operator, accounts := newCreds(t, filepath.Join(dir, "user.creds"))
	ca, serverTLS := newCertificates(t, dir)
	cert, key := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")

	for _, c := range []struct {
		name    string
		server  server.Options
		flags   []string
		context map[string]string // of the NATS CLI, in place of flags
	}{
		{"user and password", server.Options{Username: "u", Password: "p"}, []string{"--user", "u", "--password", "p"}, nil},
		{"nkey", server.Options{Nkeys: []*server.NkeyUser{{Nkey: nkeyPublic}}}, []string{"--nkey", nkey}, nil},
		{"credentials", server.Options{TrustedKeys: []string{operator}, AccountResolver: accounts}, []string{"--creds", creds}, nil},
		{"certificates", server.Options{TLS: true, TLSVerify: true, TLSConfig: serverTLS}, []string{"--tlsca", ca, "--tlscert", cert, "--tlskey", key}, nil},
		{"context with credentials", server.Options{TrustedKeys: []string{operator}, AccountResolver: accounts}, nil, map[string]string{"creds": creds}},
		{"context with certificates", server.Options{TLS: true, TLSVerify: true, TLSConfig: serverTLS}, nil, map[string]string{"ca": ca, "cert": cert, "key": key}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := startNATSWith(t, &c.server)
			login := append(c.flags, "--nats", url)
			if c.context != nil {
				c.context["url"] = url
				content, err := json.Marshal(c.context)
				if err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, "nats", "context", "prod.json"), string(content))
				login = []string{"--context", "prod"}
			}
			with := func(args ...string) []string { return append(append(args, "--cluster", "c"), login...) }
			p := start(t, with("serve", "--id", "n1", "--members", "n1", "--dir", t.TempDir())...)
			must(t, "", with("leader", "--wait", "--timeout", "50s")...)
			must(t, "", with("put", "k", "v")...)
			if out := must(t, "", with("get", "k")...); out != "v" {
				t.Errorf("got %q", out)
			}
			wantStatus(t, statusUnavailable, "NATS", "get", "k", "--cluster", "c", "--nats", url)
			p.stop()
		})
	}
}

// TestWhatNATSForbidsIsNamed: the request just gets no answer, which looks like a cluster that is not there.
func TestWhatNATSForbidsIsNamed(t *testing.T) {
	t.Parallel()
	url := startNATSWith(t, &server.Options{Users: []*server.User{
		{Username: "node", Password: "p"},
		{Username: "reader", Password: "p", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"quorate.c.kv.get.>"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}},
		{Username: "client", Password: "p", Permissions: &server.Permissions{ // all that it needs but kv.leader, which is a shortcut
			Publish: &server.SubjectPermission{Allow: []string{"quorate.c.kv.read", "quorate.c.kv.batch"}},
		}},
	}})
	as := func(user string, args ...string) []string {
		return append(args, "--cluster", "c", "--nats", url, "--user", user, "--password", "p")
	}
	p := start(t, as("node", "serve", "--id", "n1", "--members", "n1", "--dir", t.TempDir())...)
	must(t, "", as("node", "leader", "--wait", "--timeout", "50s")...)
	for _, command := range []string{
		"put k v", "member add n2", "status", "status --node n1", "leader", "member ls", "health", "snapshot ls", "trace get k",
		"bench --clients 1 --warmup 0s --duration 300ms", "snapshot restore --id n9 --dir " + filepath.Join(t.TempDir(), "n9"),
	} {
		status, _, stderr := quorate(t, nil, as("reader", append(strings.Fields(command), "--timeout", "1s")...)...)
		if status != statusUnavailable || !strings.HasPrefix(stderr, "quorate: NATS at ") || !strings.Contains(stderr, "does not let this user") || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%s: exit status %d, want %d, and one line that says what is forbidden\n%s", command, status, statusUnavailable, stderr)
		}
	}
	// What is said of a key is said, whatever else was forbidden on the way.
	wantStatus(t, statusFalse, "key not found", as("client", "get", "nobody")...)
	wantStatus(t, statusFalse, "condition not met", as("client", "put", "k", "v", "--if-revision", "99")...)
	wantStatus(t, statusUnavailable, "node n9", as("node", "get", "k", "--node", "n9", "--timeout", "2s")...)
	p.stop()
}

// TestWhatNATSForbidsANodeIsLogged: in the log's form, which whoever reads it relies on.
func TestWhatNATSForbidsANodeIsLogged(t *testing.T) {
	t.Parallel()
	url := startNATSWith(t, &server.Options{Users: []*server.User{
		{Username: "client", Password: "p"},
		{Username: "node", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"quorate.c.spans"}}}},
	}})
	with := func(user string, args ...string) []string {
		return append(args, "--cluster", "c", "--nats", url, "--user", user, "--password", "p")
	}
	p := start(t, with("node", "serve", "--id", "n1", "--members", "n1", "--dir", t.TempDir(), "--log-format", "json")...)
	must(t, "", with("client", "leader", "--wait", "--timeout", "50s")...)
	must(t, "", with("client", "trace", "put", "k", "v", "--timeout", "20s")...)
	p.waitFor(`to \"quorate.c.spans\"`)
	p.stop()
	for line := range strings.Lines(p.stderr()) {
		said := readJSON[map[string]any](t, line)
		if id, ok := said["cluster_id"]; ok && fmt.Sprintf("%T", id) != "string" {
			t.Errorf("not a cluster's id as commands show it: %v", id)
		}
	}
}

// TestServeWaitsForALogin: credentials may come to be valid later, as may NATS be there.
func TestServeWaitsForALogin(t *testing.T) {
	url := startNATSWith(t, &server.Options{Username: "u", Password: "p"})
	p := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", "n1", "--dir", t.TempDir(), "--nats", url, "--user", "u", "--password", "wrong")
	p.waitFor("NATS refuses the login")
	wantStatus(t, statusUnavailable, "does not let this user in", "status", "--cluster", "c", "--nats", url)
	p.stop()
}

func startNATSWith(t *testing.T, options *server.Options) (url string) {
	t.Helper()
	options.Host, options.Port, options.NoSigs, options.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	return s.ClientURL()
}

func newNKey(t *testing.T, file string) (path, public string) {
	t.Helper()
	pair := mustKey(t, nkeys.CreateUser)
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(seed))
	return file, publicKey(t, pair)
}

func mustKey(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func publicKey(t *testing.T, pair nkeys.KeyPair) string {
	t.Helper()
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// newCreds makes an operator with one account and one user of it, and the user's credentials.
func newCreds(t *testing.T, file string) (path, operator string, accounts server.AccountResolver) {
	t.Helper()
	operatorKey, accountKey, userKey := mustKey(t, nkeys.CreateOperator), mustKey(t, nkeys.CreateAccount), mustKey(t, nkeys.CreateUser)
	account, err := jwt.NewAccountClaims(publicKey(t, accountKey)).Encode(operatorKey)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(publicKey(t, accountKey), account); err != nil {
		t.Fatal(err)
	}
	user, err := jwt.NewUserClaims(publicKey(t, userKey)).Encode(accountKey)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := userKey.Seed()
	if err != nil {
		t.Fatal(err)
	}
	content, err := jwt.FormatUserConfig(user, seed)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(content))
	return file, publicKey(t, operatorKey), resolver
}

// newCertificates makes an authority, whose certificate is in the file that it returns, with a certificate for a server, and one for a
// client in client.pem and client.key.
func newCertificates(t *testing.T, dir string) (ca string, serverTLS *tls.Config) {
	t.Helper()
	serial := int64(0)
	issue := func(name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		t.Helper()
		serial++
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: parent == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if parent == nil {
			parent, by = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
			if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return certificate, key
	}
	authority, by := issue("ca", nil, nil)
	serverCertificate, serverKey := issue("server", authority, by)
	issue("client", authority, by)
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	return filepath.Join(dir, "ca.pem"), &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{serverCertificate.Raw}, PrivateKey: serverKey}},
		ClientCAs:    roots, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
}
