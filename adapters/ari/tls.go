package ari

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS is how to trust the switch, and how it may trust us. The zero value trusts the system's authorities.
type TLS struct {
	CAFile             string `yaml:"ca_file"`              // PEM; trusted instead of the system's authorities
	CertFile           string `yaml:"cert_file"`            // PEM; our certificate, with key_file
	KeyFile            string `yaml:"key_file"`             // PEM
	ServerName         string `yaml:"server_name"`          // name in the switch's certificate, when not the host of the address
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"` // accept any certificate
}

func (t TLS) validate(f *faults, at string) {
	f.need((t.CertFile == "") == (t.KeyFile == ""), "%s: cert_file and key_file go together", at)
	f.need(t.CAFile == "" || !t.InsecureSkipVerify, "%s: ca_file has no effect with insecure_skip_verify: remove one", at)
}

// client loads the files; at is the field's path, for errors.
func (t TLS) client(at string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%s.ca_file: %w", at, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s.ca_file: no PEM certificate in %s", at, t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s.cert_file, %s.key_file: %w", at, at, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
