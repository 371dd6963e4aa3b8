package api

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// remoteFiles are the files of a machine whose callers ca signs.
func remoteFiles(t *testing.T, ca hosttest.Authority) Remote {
	t.Helper()
	own := ca.Sign(t, x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return Remote{
		Listen: "127.0.0.1:0", Cert: hosttest.WritePEM(t, "cert", "CERTIFICATE", own.Certificate[0]),
		Key: hosttest.WritePEM(t, "key", "PRIVATE KEY", key), ClientCA: hosttest.WritePEM(t, "ca", "CERTIFICATE", ca.Cert.Raw),
	}
}

// TestRemote: only a certificate of the right signer, in its time, for one user, gets
// in, by TLS 1.3.
func TestRemote(t *testing.T) {
	ca, wrong := hosttest.NewAuthority(t, "right"), hosttest.NewAuthority(t, "wrong")
	l, err := ListenRemote(remoteFiles(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	s := NewRemoteService(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := CallerOf(r.Context())
		fmt.Fprintf(w, "%d %v %q %v", c.UID, c.Remote, c.Group, err)
	}), quiet)
	var crew sync.WaitGroup
	crew.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { _ = s.Close(); crew.Wait() })
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	good := ca.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=1001")
	for _, c := range []struct {
		name  string
		certs []tls.Certificate
		most  uint16
		want  string // empty: not let in
	}{
		{"right", []tls.Certificate{good}, 0, `1001 true "" <nil>`},
		{"none", nil, 0, ""},
		{"other signer", []tls.Certificate{wrong.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=1001")}, 0, ""},
		{"expired", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, before, "maxwell:uid=1001")}, 0, ""},
		{"a server's", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageServerAuth, later, "maxwell:uid=1001")}, 0, ""},
		{"nobody's", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, later)}, 0, ""},
		{"two users'", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=1001", "maxwell:uid=1002")}, 0, ""},
		{"odd number", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=+1")}, 0, ""},
		{"leading zero", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=01")}, 0, ""},
		{"negative", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=-1")}, 0, ""},
		{"everybody", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=4294967295")}, 0, ""},
		{"another scheme beside", []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, later, "maxwell:uid=1001", "spiffe://x/y")}, 0, ""},
		{"TLS 1.2", []tls.Certificate{good}, tls.VersionTLS12, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			roots := x509.NewCertPool()
			roots.AddCert(ca.Cert)
			tr := &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: c.certs, MaxVersion: c.most},
				ForceAttemptHTTP2: true,
			}
			defer tr.CloseIdleConnections()
			r, err := (&http.Client{Transport: tr}).Get("https://" + l.Addr().String() + "/")
			if err != nil {
				if c.want != "" {
					t.Errorf("refused: %v", err)
				}
				return
			}
			defer r.Body.Close()
			text, _ := io.ReadAll(r.Body)
			if string(text) != c.want || r.ProtoMajor != 2 {
				t.Errorf("%s by HTTP/%d, want %q", text, r.ProtoMajor, c.want)
			}
		})
	}
	if r, err := http.Get("http://" + l.Addr().String() + "/"); err == nil {
		if text, _ := io.ReadAll(r.Body); r.StatusCode == http.StatusOK {
			t.Errorf("without TLS: %s", text)
		}
		r.Body.Close()
	}
}

// TestCertificateEndsWhileConnected: a connection is worth no more than its
// certificate.
func TestCertificateEndsWhileConnected(t *testing.T) {
	ca := hosttest.NewAuthority(t, "ca")
	leaf := ca.Sign(t, x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour), "maxwell:uid=7")
	parsed, err := x509.ParseCertificate(leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{parsed}, VerifiedChains: [][]*x509.Certificate{{parsed, ca.Cert}}}
	if uid, err := certified(state, time.Now()); err != nil || uid != 7 {
		t.Errorf("%d, %v", uid, err)
	}
	if _, err := certified(state, time.Now().Add(2*time.Hour)); err == nil {
		t.Error("good after its end")
	}
	if _, err := certified(tls.ConnectionState{}, time.Now()); err == nil {
		t.Error("nobody is somebody")
	}
}

// TestRemoteFiles: files that are missing, of the wrong kind or open to everybody are
// named.
func TestRemoteFiles(t *testing.T) {
	ca := hosttest.NewAuthority(t, "ca")
	for name, c := range map[string]struct {
		change func(r *Remote)
		want   string
	}{
		"no key":          {func(r *Remote) { r.Key = "/nowhere" }, "tcp.key"},
		"open key":        {func(r *Remote) { _ = os.Chmod(r.Key, 0o644) }, "chmod 0600"},
		"no cert":         {func(r *Remote) { r.Cert = "/nowhere" }, "tcp.cert"},
		"no CA":           {func(r *Remote) { r.ClientCA = "/nowhere" }, "tcp.client_ca"},
		"key as CA":       {func(r *Remote) { r.ClientCA = r.Key }, "holds no certificate"},
		"key and cert":    {func(r *Remote) { r.Cert = r.ClientCA }, "tcp.cert and tcp.key"},
		"no such address": {func(r *Remote) { r.Listen = "203.0.113.1:1" }, "listen on"},
	} {
		t.Run(name, func(t *testing.T) {
			r := remoteFiles(t, ca)
			c.change(&r)
			l, err := ListenRemote(r)
			if err == nil {
				_ = l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q in it", err, c.want)
			}
		})
	}
}
