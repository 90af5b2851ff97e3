package sip

import "github.com/ctigate/ctigate/core/call"

// How long a dialog may say nothing, by our clock.
const (
	scanEvery      = call.Second
	unansweredFor  = 32 * call.Second       // an INVITE without any response (RFC 3261, timer B)
	challengedFor  = 8 * call.Second        // a challenge that nobody takes up
	provisionalFor = 240 * call.Second      // after a provisional response: timer C is above three minutes, and repeated
	rememberedFor  = 32 * call.Second       // an ended dialog, for what is repeated
	idleFor        = 6 * 3600 * call.Second // an answered one without session timer, signalling or media
	refreshGrace   = 32 * call.Second       // after the session timer ran out (RFC 4028, 10: BYE comes before)
)

// advance lets time pass to now, by our clock: dialogs of which nothing is heard any more end, and streams are reported.
func (e *engine) advance(now call.Time) {
	e.now = max(e.now, now)
	if e.now-e.ticked < scanEvery {
		return
	}
	e.ticked = e.now
	var next *dialog
	for d := e.first; d != nil; d = next {
		next = d.new
		e.look(d)
		e.report(d)
	}
	e.unanswered.trim(2*e.n+1024, func(d *dialog) bool { return d.phase == trying })
	e.spare.trim(2*e.n+1024, (*dialog).spare)
}

// clockSet keeps everything as far from now as it was, when our clock was set by d: else what is heard all the time would
// seem silent for as long. own says that packets are stamped by that clock too.
func (e *engine) clockSet(d call.Time, own bool) {
	theirs := d // by how much the capture's clock and ours are further apart now
	if own {
		theirs = 0
	}
	shift := func(by call.Time, times ...*call.Time) {
		for _, t := range times {
			if *t != 0 {
				*t += by
			}
		}
	}
	shift(d, &e.now, &e.ticked, &e.calm)
	for host := range e.heardAt {
		e.heardAt[host] += d
	}
	groups := map[*group]bool{}
	for x := e.first; x != nil; x = x.new {
		shift(d, &x.challenged, &x.heard, &x.expires)
		x.lag += theirs
		if x.refer != nil {
			shift(d, &x.refer.clearAt)
		}
		if g := x.group; g != nil && !groups[g] {
			groups[g] = true
			shift(d, &g.referred, &g.diverted)
		}
		for _, f := range x.flows {
			if f != nil {
				shift(d, &f.lastHeard, &f.noted)
				shift(d-theirs, &f.since, &f.due, &f.reported, &f.told)
				f.lag += theirs
			}
		}
	}
}

// look ends what is over of d, or forgets it.
func (e *engine) look(d *dialog) {
	silent := e.now - d.heard
	switch {
	case d.phase == terminated:
		if silent > rememberedFor {
			e.remove(d)
		}
	case d.phase == challenged && e.now-d.challenged > challengedFor:
		e.end(d, ending{at: d.challenged - d.lag, by: int(uas), sip: d.challenge, q850: q850Of(d.challenge)})
		e.late(d, "ctigate.challenge_unanswered")
	case d.phase == trying && silent > unansweredFor:
		e.vanish(d, "ctigate.invite_unanswered")
	case d.phase == proceeding && silent > provisionalFor && e.now-d.mediaHeard() > provisionalFor:
		e.vanish(d, "ctigate.invite_forgotten")
	case d.refer != nil && d.refer.clearAt != 0 && e.now > d.refer.clearAt:
		e.end(d, ending{at: d.refer.doneAt, by: int(d.refer.by), q850: 16})
		e.late(d, "ctigate.transferred_away")
	case d.expires != 0 && e.now > d.expires+refreshGrace && e.now-d.mediaHeard() > refreshGrace:
		e.vanish(d, "ctigate.session_expired")
	case d.phase == confirmed && d.stray() && silent > provisionalFor:
		e.vanish(d, "ctigate.dialog_of_one_side")
	case d.phase == confirmed && d.expires == 0 && silent > idleFor && e.now-d.mediaHeard() > idleFor:
		e.vanish(d, "ctigate.dialog_idle")
	}
}

// late hands over what time has brought, rather than a message.
func (e *engine) late(d *dialog, why string) {
	for i := range e.obs {
		if e.obs[i].Native.Type == "" {
			e.obs[i].Native = call.Native{Type: why, ID: d.callID + "/" + d.tags[uac]}
		}
	}
	if len(e.obs) > 0 {
		e.flush(why, nil, e.now)
	}
}
