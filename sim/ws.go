package sim

import (
	"bufio"
	"crypto/sha1" // RFC 6455, 4.2.2 asks for SHA-1 // RFC 6455 section 4.2.2 asks for it
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// The server side of a websocket, RFC 6455, as far as ARI needs it. It is our own so that faults can be made of it:
// half a frame, or one byte a second, is beyond what a library lets one do.

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// maxControl bounds what a client may send in one frame: ARI clients send nothing but control frames.
const maxControl = 64 << 10

// wsUpgrade answers the handshake and takes the connection over.
func wsUpgrade(w http.ResponseWriter, r *http.Request) (net.Conn, *bufio.Reader, error) {
	key := r.Header.Get("Sec-Websocket-Key")
	if !headerHas(r, "Upgrade", "websocket") || !headerHas(r, "Connection", "upgrade") || key == "" {
		return nil, nil, fmt.Errorf("no websocket upgrade asked for")
	}
	h, ok := w.(http.Hijacker)
	if !ok {
		return nil, nil, fmt.Errorf("the connection cannot be taken over")
	}
	k, rw, err := h.Hijack()
	if err != nil {
		return nil, nil, err
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, 4.2.2 asks for SHA-1
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
	if p := r.Header.Get("Sec-Websocket-Protocol"); p != "" {
		answer += "Sec-WebSocket-Protocol: " + strings.TrimSpace(strings.Split(p, ",")[0]) + "\r\n"
	}
	if _, err := io.WriteString(k, answer+"\r\n"); err != nil {
		k.Close()
		return nil, nil, err
	}
	return k, rw.Reader, nil
}

func headerHas(r *http.Request, name, token string) bool {
	for _, v := range r.Header.Values(name) {
		for _, t := range strings.Split(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// wsHead appends the head of an unmasked, final frame with n bytes of payload.
func wsHead(b []byte, op byte, n int) []byte {
	b = append(b, 0x80|op)
	switch {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return append(b, 126, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
}

func wsFrame(op byte, payload []byte) []byte {
	return append(wsHead(nil, op, len(payload)), payload...)
}

// wsRead reads one frame of a client and unmasks it.
func wsRead(r *bufio.Reader) (op byte, payload []byte, err error) {
	var h [8]byte
	if _, err = io.ReadFull(r, h[:2]); err != nil {
		return 0, nil, err
	}
	op, masked, n := h[0]&15, h[1]&0x80 != 0, uint64(h[1]&0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(r, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:2]))
	case 127:
		_, err = io.ReadFull(r, h[:8])
		n = binary.BigEndian.Uint64(h[:8])
	}
	if err != nil {
		return 0, nil, err
	}
	if !masked || n > maxControl {
		return 0, nil, fmt.Errorf("client frame of %d bytes, masked %v: want a masked one of at most %d", n, masked, maxControl)
	}
	var mask [4]byte
	if _, err = io.ReadFull(r, mask[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	if _, err = io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i&3]
	}
	return op, payload, nil
}

// wsServe answers control frames until the client leaves.
func (c *conn) wsServe(r *bufio.Reader) {
	for {
		op, payload, err := wsRead(r)
		switch {
		case err != nil:
			return
		case op == opPing:
			c.answer(wsFrame(opPong, payload))
		case op == opClose:
			c.answer(wsFrame(opClose, payload[:min(2, len(payload))]))
			c.finish()
			<-c.done
			return
		}
	}
}
