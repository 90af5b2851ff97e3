package core

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS is how a link trusts its peer, and how the peer may trust us. The zero value trusts the system's authorities.
type TLS struct {
	CAFile             string `yaml:"ca_file"`              // PEM; trusted instead of the system's authorities
	CertFile           string `yaml:"cert_file"`            // PEM; our certificate, with key_file
	KeyFile            string `yaml:"key_file"`             // PEM
	ServerName         string `yaml:"server_name"`          // name in the peer's certificate, when not the host of the address
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"` // accept any certificate
}

// Validate returns every fault; at is the field's path.
func (t TLS) Validate(at string) (errs []error) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		errs = append(errs, fmt.Errorf("%s: cert_file and key_file go together", at))
	}
	if t.CAFile != "" && t.InsecureSkipVerify {
		errs = append(errs, fmt.Errorf("%s: ca_file has no effect with insecure_skip_verify: remove one", at))
	}
	return errs
}

// Client reads the files and makes the settings for a peer at host (TLS 1.2 at least). Call it for each connection, so
// that a renewed certificate is picked up. at is the field's path, for errors.
func (t TLS) Client(at, host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	if t.CAFile != "" {
		pool, err := authorities(at+".ca_file", t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading %s.cert_file and %s.key_file: %w", at, at, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// ServerTLS reads the certificate that a listener shows, and, where clientCAFile is not empty, the authorities of which
// its clients must show one (TLS 1.2 at least). at is the field's path, for errors.
func ServerTLS(at, certFile, keyFile, clientCAFile string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading %s.cert_file and %s.key_file: %w", at, at, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if clientCAFile == "" {
		return c, nil
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs, err = authorities(at+".client_ca_file", clientCAFile)
	return c, err
}

func authorities(at, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", at, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading %s: no PEM certificate in %s", at, file)
	}
	return pool, nil
}
