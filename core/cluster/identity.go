package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"

	"github.com/ctigate/ctigate/core"
)

// names are those that a certificate proves: its DNS names and its common name.
func names(c *x509.Certificate) []string {
	return append(slices.Clone(c.DNSNames), c.Subject.CommonName)
}

// clientTLS is for a connection to a peer, whose certificate must name it.
func (t TLS) clientTLS(peer string) (*tls.Config, error) {
	cfg, err := t.files().Client("cluster.tls", peer)
	if err != nil {
		return nil, err
	}
	cfg.InsecureSkipVerify = true // the standard check reads no common names: VerifyConnection does all that it does, and that
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		return verify(s, cfg.RootCAs, peer)
	}
	return cfg, nil
}

func verify(s tls.ConnectionState, roots *x509.CertPool, peer string) error {
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("peer %s shows no certificate", peer)
	}
	cert := s.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := cert.Verify(opts); err != nil {
		return fmt.Errorf("the certificate of peer %s: %w", peer, err)
	}
	if !slices.Contains(names(cert), peer) {
		return fmt.Errorf("the certificate at the address of peer %s is for %v", peer, names(cert))
	}
	return nil
}

// dial connects to a peer with TLS, if there is any.
func (l *Link) dial(ctx context.Context, p *peer) (net.Conn, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
	if err != nil || l.cfg.TLS == (TLS{}) {
		return nc, err
	}
	cfg, err := l.cfg.TLS.clientTLS(p.id)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := tls.Client(nc, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// admit makes TLS of an accepted connection, if there is any, and says who may be at its other end: the names in the
// certificate, or anybody on loopback.
func (l *Link) admit(ctx context.Context, nc net.Conn) (c net.Conn, may func(node string) bool, err error) {
	t := l.cfg.TLS
	if t == (TLS{}) {
		return nc, func(string) bool { return true }, nil
	}
	cfg, err := core.ServerTLS("cluster.tls", t.CertFile, t.KeyFile, t.CAFile)
	if err != nil {
		return nil, nil, err
	}
	s := tls.Server(nc, cfg)
	if err := s.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	proven := names(s.ConnectionState().PeerCertificates[0])
	return s, func(node string) bool { return slices.Contains(proven, node) }, nil
}
