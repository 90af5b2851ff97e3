package trunk

import (
	"math/rand/v2"
	"strconv"
)

const (
	registerEvery = 60 * second
	registerFor   = 120 // seconds
)

// registers lets every agent's phone log in at the PBX at time t, and again before that expires (RFC 3261, 10).
func (e *engine) registers(t int64) {
	r := rand.New(rand.NewPCG(e.opt.Seed, 0x72656769))
	for i := range e.agents {
		e.registration(r, agentID(i+1), t+int64(i)*3_000)
	}
}

func (e *engine) registration(r *rand.Rand, user string, t int64) {
	host := e.hosts.pbx.addr.Addr().String()
	phone := &party{ep: e.hosts.phones, user: user, domain: host, software: phoneSoftware, tag: token(r, 10), cseq: r.IntN(500)}
	registrar := &party{ep: e.hosts.pbx, user: user, domain: host, software: pbxSoftware, tag: token(r, 10)}
	d := &dialog{id: token(r, 20) + "@" + host, uac: phone, uas: registrar, rng: rand.New(rand.NewPCG(r.Uint64(), r.Uint64())), target: "sip:" + host}
	var again func(int64)
	again = func(at int64) {
		m := d.request(phone, "REGISTER", with("Expires: "+strconv.Itoa(registerFor)))
		e.send(SIP, phone.ep, registrar.ep, d.id, m.raw)
		ok := m.reply(200, "OK", with("Expires: "+strconv.Itoa(registerFor)))
		e.at(at+1_200, func(int64) { e.send(SIP, registrar.ep, phone.ep, d.id, ok) })
		e.at(at+registerEvery, again)
	}
	e.at(t, again)
}
