package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Remote is the API for other machines: TCP with TLS 1.3, both ends with a
// certificate.
type Remote struct {
	Listen    string // host:port
	Cert, Key string // files of this machine's certificate
	ClientCA  string // file of those who sign the certificates of callers
}

// identityPrefix begins the one URI of a caller's certificate that names its user:
// maxwell:uid=1000.
const identityPrefix = "maxwell:uid="

// mostRemote bounds the connections of other machines: until the handshake is over
// nobody knows whose they are.
const mostRemote = 1024

// ListenRemote opens the port, and reads the certificates.
func ListenRemote(r Remote) (net.Listener, error) {
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", r.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", r.Listen, err)
	}
	return tls.NewListener(&crowd{Listener: l, room: make(chan struct{}, mostRemote)}, cfg), nil
}

// Check says what is wrong with the certificates.
func (r Remote) Check() error {
	_, err := r.config()
	return err
}

func (r Remote) config() (*tls.Config, error) {
	if info, err := os.Stat(r.Key); err != nil {
		return nil, fmt.Errorf("read tcp.key: %w", err)
	} else if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return nil, fmt.Errorf("tcp.key %s: mode %04o lets everybody read it; chmod 0600 it", r.Key, mode)
	}
	cert, err := tls.LoadX509KeyPair(r.Cert, r.Key)
	if err != nil {
		return nil, fmt.Errorf("read tcp.cert and tcp.key: %w", err)
	}
	text, err := os.ReadFile(r.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read tcp.client_ca: %w", err)
	}
	signers := x509.NewCertPool()
	if !signers.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("tcp.client_ca %s holds no certificate in PEM; write the signer's certificate there", r.ClientCA)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: signers,
		NextProtos: []string{"h2", "http/1.1"}, SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error { _, err := certified(s, time.Now()); return err },
	}, nil
}

// errCertificate is why a certificate is nobody's.
var errCertificate = errors.New("the certificate names no user: it needs exactly one URI " + identityPrefix + "N")

// certified is the user that a verified certificate is for. It is asked again at
// every call: a connection does not outlive its certificate.
func certified(s tls.ConnectionState, now time.Time) (uint32, error) {
	if len(s.VerifiedChains) == 0 || len(s.PeerCertificates) == 0 {
		return 0, ErrNoCaller
	}
	for _, c := range s.VerifiedChains[0] {
		if now.After(c.NotAfter) {
			return 0, fmt.Errorf("%w: the certificate of %q has expired", ErrNoCaller, c.Subject.CommonName)
		}
	}
	uid, found := uint32(0), 0
	for _, u := range s.PeerCertificates[0].URIs {
		digits, ours := strings.CutPrefix(u.String(), identityPrefix)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ours || err != nil || strconv.FormatUint(n, 10) != digits || n == 1<<32-1 {
			return 0, errCertificate
		}
		uid = uint32(n)
		found++
	}
	if found != 1 {
		return 0, errCertificate
	}
	return uid, nil
}

// NewRemoteService serves h to callers on other machines, who are never trusted.
func NewRemoteService(h http.Handler, log *slog.Logger) *http.Server {
	g := &gate{body: bodyPatience, answer: answerPatience}
	bounded := g.bound(h)
	s := server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := known{err: ErrNoCaller}
		if r.TLS != nil {
			who.caller.Remote = true
			who.caller.UID, who.err = certified(*r.TLS, time.Now())
		}
		bounded.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
	}), othersStreams, log)
	s.IdleTimeout = idlePatience
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	return s
}

// crowd is a listener with room for so many connections; what comes beyond is
// closed.
type crowd struct {
	net.Listener

	room chan struct{}
}

// Accept implements net.Listener.
func (l *crowd) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.room <- struct{}{}:
			return &counted{Conn: c, back: func() { <-l.room }}, nil
		default:
			_ = c.Close()
		}
	}
}
