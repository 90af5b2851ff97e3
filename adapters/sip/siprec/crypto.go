package siprec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/pion/srtp/v3"

	"github.com/ctigate/ctigate/adapters/sip/sdp"
)

// suites are those of SDES that pion/srtp decrypts (RFC 4568, 6188 and 7714).
var suites = [...]struct {
	name    string
	profile srtp.ProtectionProfile
}{
	{"AEAD_AES_256_GCM", srtp.ProtectionProfileAeadAes256Gcm},
	{"AEAD_AES_128_GCM", srtp.ProtectionProfileAeadAes128Gcm},
	{"AES_256_CM_HMAC_SHA1_80", srtp.ProtectionProfileAes256CmHmacSha1_80},
	{"AES_256_CM_HMAC_SHA1_32", srtp.ProtectionProfileAes256CmHmacSha1_32},
	{"AES_CM_128_HMAC_SHA1_80", srtp.ProtectionProfileAes128CmHmacSha1_80},
	{"AES_CM_128_HMAC_SHA1_32", srtp.ProtectionProfileAes128CmHmacSha1_32},
}

// maxSources bounds the SSRCs of one stream that a context remembers.
const maxSources = 32

// acceptCrypto picks the first line of an offer that can be decrypted, and makes ours.
func acceptCrypto(offered []sdp.Crypto) (ours, theirs sdp.Crypto, err error) {
	var usable []sdp.Crypto
	for _, c := range offered {
		if _, err := parameters(c); err == nil {
			usable = append(usable, c)
		}
	}
	names := make([]string, len(suites))
	for i := range suites {
		names[i] = suites[i].name
	}
	return sdp.AnswerCrypto(usable, names...)
}

// parameters reads what follows the key: |lifetime|mki:length, then session parameters (RFC 4568, 6.1 and 6.3). What
// would change the packets and is not done here is refused.
func parameters(c sdp.Crypto) (mki []byte, err error) {
	keys, session, _ := strings.Cut(c.Params, " ")
	for _, p := range strings.Split(keys, "|") {
		value, length, ok := strings.Cut(p, ":")
		if !ok {
			continue // lifetime
		}
		n, err := strconv.Atoi(length)
		v, good := new(big.Int).SetString(value, 10)
		if err != nil || !good || v.Sign() < 0 || n < 1 || n > 128 || (v.BitLen()+7)/8 > n {
			return nil, fmt.Errorf("reading a=crypto %d: no such MKI", c.Tag)
		}
		mki = v.FillBytes(make([]byte, n))
	}
	if strings.Contains(keys, ";") {
		return nil, fmt.Errorf("reading a=crypto %d: several keys in one line", c.Tag)
	}
	for _, p := range strings.Fields(session) {
		name, _, _ := strings.Cut(p, "=")
		if name != "WSH" {
			return nil, fmt.Errorf("reading a=crypto %d: session parameter %.20q is not supported", c.Tag, name)
		}
	}
	return mki, nil
}

// decipher undoes the SRTP of one stream. It is for one goroutine at a time.
//
// A context remembers every source it is shown, before it knows whether the packet is genuine. So a source that is new is
// shown to a context on probation first: what is forged neither grows the true one nor makes it forget its rollovers.
type decipher struct {
	crypto  sdp.Crypto
	context *srtp.Context
	seen    map[uint32]struct{} // sources with a genuine packet
	probe   *srtp.Context
	probed  int // packets shown to probe
	buf     []byte
}

func newDecipher(c sdp.Crypto) (*decipher, error) {
	d := &decipher{crypto: c, seen: map[uint32]struct{}{}}
	var err error
	d.context, err = d.fresh()
	return d, err
}

// fresh makes a context that remembers nothing.
func (d *decipher) fresh() (*srtp.Context, error) {
	key, salt, err := d.crypto.Master()
	if err != nil {
		return nil, err
	}
	mki, err := parameters(d.crypto)
	if err != nil {
		return nil, err
	}
	// Repeated packets are measured as duplicates, and change nothing else here.
	options := []srtp.ContextOption{srtp.SRTPNoReplayProtection(), srtp.SRTCPNoReplayProtection()}
	if len(mki) > 0 {
		options = append(options, srtp.MasterKeyIndicator(mki))
	}
	for i := range suites {
		if suites[i].name == d.crypto.Suite {
			return srtp.CreateContext(key, salt, suites[i].profile, options...)
		}
	}
	return nil, errors.New("SRTP suite " + d.crypto.Suite + " is not supported")
}

// admit reports an error unless ssrc is known, or open finds its packet genuine.
func (d *decipher) admit(ssrc uint32, open func(*srtp.Context) error) (err error) {
	if _, ok := d.seen[ssrc]; ok {
		return nil
	}
	if d.probe == nil || d.probed >= maxSources {
		if d.probe, err = d.fresh(); err != nil {
			return err
		}
		d.probed = 0
	}
	d.probed++
	if err := open(d.probe); err != nil {
		return err
	}
	if len(d.seen) >= maxSources {
		if d.context, err = d.fresh(); err != nil {
			return err
		}
		clear(d.seen)
	}
	d.seen[ssrc] = struct{}{}
	return nil
}

// rtp returns the packet in the clear, valid until the next call.
func (d *decipher) rtp(b []byte) ([]byte, error) {
	if len(b) < 12 {
		return nil, errShort
	}
	err := d.admit(binary.BigEndian.Uint32(b[8:]), func(c *srtp.Context) error {
		_, err := c.DecryptRTP(nil, b, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	out, err := d.context.DecryptRTP(d.buf[:0], b, nil)
	if err == nil {
		d.buf = out
	}
	return out, err
}

// rtcp returns the compound packet in the clear.
func (d *decipher) rtcp(b []byte) ([]byte, error) {
	if len(b) < 8 {
		return nil, errShort
	}
	err := d.admit(binary.BigEndian.Uint32(b[4:]), func(c *srtp.Context) error {
		_, err := c.DecryptRTCP(nil, b, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d.context.DecryptRTCP(nil, b, nil)
}

var errShort = errors.New("shorter than its header")
