package sim

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leg is one session that is up: its headers, in the switch's order.
type leg struct {
	call   *simCall
	fields []field
}

func (l leg) get(key string) string { return value(l.fields, key) }

// legs lists the sessions that are up. It runs on the switch's goroutine.
func (s *FreeSWITCH) legs() []leg {
	var out []leg
	for _, c := range s.eng.active() {
		any := c.last(protoESL, func(*step, touch) bool { return true })
		for _, x := range c.last(protoESL, func(st *step, _ touch) bool { return st.full }) {
			fs, _ := jsonFields(string(x.step.json.append(nil, c)))
			i := slices.IndexFunc(any, func(y shows) bool { return y.slot == x.slot })
			newest, _ := jsonFields(string(any[i].step.json.append(nil, c)))
			for j := range fs {
				if v := value(newest, fs[j].key); v != "" && strings.HasPrefix(fs[j].key, "Ch") {
					fs[j].val = v
				}
			}
			out = append(out, leg{c, fs})
		}
	}
	return out
}

// bridged pairs the legs that talk to each other now: first leg → second.
func (s *FreeSWITCH) bridged() map[string]string {
	out := map[string]string{}
	for _, c := range s.eng.active() {
		for st := range c.played {
			switch st.typ {
			case "CHANNEL_BRIDGE":
				fs, _ := jsonFields(string(st.json.append(nil, c)))
				out[value(fs, "Unique-ID")] = value(fs, "Other-Leg-Unique-ID")
			case "CHANNEL_UNBRIDGE":
				delete(out, c.vals[st.leg])
			}
		}
	}
	return out
}

// api answers a command as FreeSWITCH does.
func (s *FreeSWITCH) api(ctx context.Context, command string) (out string) {
	out = "-ERR the switch is stopping\n"
	s.eng.do(ctx, func() { out = s.answer(command) })
	return out
}

func (s *FreeSWITCH) answer(command string) string {
	verb, rest, _ := strings.Cut(command, " ")
	args := strings.Fields(rest)
	switch verb {
	case "status":
		return s.status()
	case "version":
		return "FreeSWITCH Version " + freeswitchVersion + " (git a88d069 2024-08-02 21:02:27Z 64bit)\n"
	case "show":
		return s.show(args)
	case "uuid_dump":
		return s.dump(args)
	case "uuid_exists":
		return strconv.FormatBool(len(args) == 1 && s.find(args[0]) != nil)
	case "uuid_kill":
		return s.kill(args)
	case "strmicroepoch":
		return strconv.FormatInt(s.eng.stamp(s.eng.now()), 10)
	case "strepoch":
		return strconv.FormatInt(s.eng.stamp(s.eng.now())/second, 10)
	case "global_getvar":
		return s.globalVar(rest)
	case "hostname":
		return "vm"
	case "module_exists":
		return strconv.FormatBool(slices.Contains(modules, rest))
	case "callcenter_config":
		return s.callcenter(args)
	case "originate":
		return s.originate(rest)
	}
	return "-ERR " + verb + " Command not found!\n"
}

var modules = []string{"mod_event_socket", "mod_sofia", "mod_loopback", "mod_commands", "mod_conference", "mod_db", "mod_dptools", "mod_expr",
	"mod_hash", "mod_fifo", "mod_callcenter", "mod_valet_parking", "mod_dialplan_xml", "mod_sndfile", "mod_native_file", "mod_tone_stream", "mod_opus"}

func (s *FreeSWITCH) globalVar(name string) string {
	switch name {
	case "core_uuid":
		return s.eng.globals[globalCore]
	case "hostname", "local_hostname", "switchname":
		return "vm"
	case "domain", "local_ip_v4":
		return "127.0.0.1"
	}
	return ""
}

func (s *FreeSWITCH) status() string {
	up := time.Duration(s.eng.now()-s.eng.boot) * time.Microsecond
	n := len(s.legs())
	s.peak = max(s.peak, n)
	return fmt.Sprintf("UP %s\nFreeSWITCH (Version 1.10.12-release git a88d069 2024-08-02 21:02:27Z 64bit) is ready\n%d session(s) since startup\n"+
		"%d session(s) - peak %d, last 5min %d \n0 session(s) per Sec out of max 500, peak 20, last 5min 20 \n5000 session(s) max\n"+
		"min idle cpu 0.00/97.27\nCurrent Stack Size/Max 240K/8192K\n", upTime(up), s.eng.counts[countSession], n, s.peak, s.peak)
}

// rows writes a table as `as json` does.
func rows(all []pairs) string {
	if len(all) == 0 {
		return "{\"row_count\": 0}\n"
	}
	b := fmt.Appendf(nil, `{"row_count":%d,"rows":[`, len(all))
	for i, p := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = p.appendJSON(b)
	}
	return string(append(b, "]}"...))
}

func (s *FreeSWITCH) show(args []string) string {
	if len(args) != 3 || args[1] != "as" || args[2] != "json" {
		return "-USAGE: codec|endpoint|application|api|dialplan|file|timer|calls [count]|channels [count|like <match string>]|…\n"
	}
	legs := s.legs()
	var all []pairs
	switch args[0] {
	case "channels":
		for _, l := range legs {
			all = append(all, channelRow(l, true))
		}
	case "calls", "detailed_calls":
		all = s.callRows(legs, args[0] == "detailed_calls")
	default:
		return "-ERR no such table\n"
	}
	return rows(all)
}

// channelRow is a leg's row; full has what only the channels table shows.
func channelRow(l leg, full bool) pairs {
	created := l.get("Caller-Channel-Created-Time")
	epoch, text := "", ""
	if len(created) == 16 {
		epoch = created[:10]
		text = time.Unix(parseInt(epoch), 0).UTC().Format(time.DateTime)
	}
	p := pairs{"uuid", l.get("Unique-ID"), "direction", l.get("Call-Direction"), "created", text, "created_epoch", epoch, "name", l.get("Channel-Name"),
		"state", l.get("Channel-State"), "cid_name", l.get("Caller-Caller-ID-Name"), "cid_num", l.get("Caller-Caller-ID-Number"),
		"ip_addr", l.get("Caller-Network-Addr"), "dest", l.get("Caller-Destination-Number")}
	dialplan := l.get("Caller-Dialplan")
	if dialplan == "" {
		dialplan = "XML"
	}
	if full {
		p = append(p, "application", l.get("variable_current_application"), "application_data", l.get("variable_current_application_data"),
			"dialplan", dialplan, "context", l.get("Caller-Context"),
			"read_codec", l.get("Channel-Read-Codec-Name"), "read_rate", l.get("Channel-Read-Codec-Rate"), "read_bit_rate", l.get("Channel-Read-Codec-Bit-Rate"),
			"write_codec", l.get("Channel-Write-Codec-Name"), "write_rate", l.get("Channel-Write-Codec-Rate"), "write_bit_rate", l.get("Channel-Write-Codec-Bit-Rate"),
			"secure", "", "hostname", "vm")
	}
	p = append(p, "presence_id", "", "presence_data", "", "accountcode", l.get("variable_accountcode"), "callstate", l.get("Channel-Call-State"),
		"callee_name", l.get("Caller-Callee-ID-Name"), "callee_num", l.get("Caller-Callee-ID-Number"), "callee_direction", "SEND")
	if full {
		p = append(p, "call_uuid", l.get("Channel-Call-UUID"))
	} else {
		p = append(p, "call_uuid", l.get("Channel-Call-UUID"), "hostname", "vm")
	}
	p = append(p, "sent_callee_name", l.get("variable_last_sent_callee_id_name"), "sent_callee_num", l.get("variable_last_sent_callee_id_number"))
	if full {
		p = append(p, "initial_cid_name", l.get("Caller-Orig-Caller-ID-Name"), "initial_cid_num", l.get("Caller-Orig-Caller-ID-Number"),
			"initial_ip_addr", l.get("Caller-Network-Addr"), "initial_dest", l.get("Caller-Destination-Number"),
			"initial_dialplan", dialplan, "initial_context", l.get("Caller-Context"))
	}
	return p
}

func (s *FreeSWITCH) callRows(legs []leg, detailed bool) []pairs {
	var all []pairs
	for a, b := range s.bridged() {
		i := slices.IndexFunc(legs, func(l leg) bool { return l.get("Unique-ID") == a })
		j := slices.IndexFunc(legs, func(l leg) bool { return l.get("Unique-ID") == b })
		if i < 0 || j < 0 {
			continue
		}
		row := channelRow(legs[i], detailed)
		for n, x := range channelRow(legs[j], detailed) {
			if n%2 == 0 {
				x = "b_" + x
			}
			row = append(row, x)
		}
		epoch := legs[i].get("Caller-Channel-Bridged-Time")
		all = append(all, append(row, "call_created_epoch", epoch[:min(10, len(epoch))]))
	}
	slices.SortFunc(all, func(x, y pairs) int { return strings.Compare(x[7]+x[1], y[7]+y[1]) })
	return all
}

func (s *FreeSWITCH) find(uuid string) *leg {
	for _, l := range s.legs() {
		if l.get("Unique-ID") == uuid {
			return &l
		}
	}
	return nil
}

// dump is a leg's variables as an event.
func (s *FreeSWITCH) dump(args []string) string {
	if len(args) == 0 {
		return "-USAGE: <uuid> [format]\n"
	}
	l := s.find(args[0])
	if l == nil {
		return "-ERR No such channel!\n"
	}
	p := s.common("CHANNEL_DATA", "mod_commands.c", "uuid_dump_function", "6468", s.eng.stamp(s.eng.now()))
	for _, x := range l.fields {
		if (strings.HasPrefix(x.key, "C") || strings.HasPrefix(x.key, "variable_") || strings.HasPrefix(x.key, "Other-") ||
			strings.HasPrefix(x.key, "Presence-") || strings.HasPrefix(x.key, "Unique-") || strings.HasPrefix(x.key, "Answer-")) && x.key != "Core-UUID" {
			p = append(p, x.key, x.val)
		}
	}
	if len(args) > 1 && args[1] == "json" {
		return string(p.appendJSON(nil))
	}
	return string(p.appendPlain(nil))
}

func (s *FreeSWITCH) kill(args []string) string {
	if len(args) == 0 {
		return "-USAGE: <uuid> [cause]\n"
	}
	l := s.find(args[0])
	if l == nil {
		return "-ERR No such channel!\n"
	}
	s.eng.at(s.eng.now(), func() { s.eng.hangup(l.call, s.eng.heap[0].at) })
	return "+OK\n"
}

// callcenter answers the lists of mod_callcenter.
func (s *FreeSWITCH) callcenter(args []string) string {
	var b strings.Builder
	switch strings.Join(args[:min(2, len(args))], " ") {
	case "queue list":
		return s.queueList(args[2:])
	case "agent list":
		b.WriteString("name|instance_id|uuid|type|contact|status|state|max_no_answer|wrap_up_time|reject_delay_time|busy_delay_time|no_answer_delay_time|last_bridge_start|last_bridge_end|last_offered_call|last_status_change|no_answer_count|calls_answered|talk_time|ready_time|external_calls_count\n")
		for _, a := range s.eng.staff.all {
			state := "Waiting"
			if a.free > s.eng.now() {
				state = "In a queue call"
			}
			fmt.Fprintf(&b, "%s@default|single_box||callback|[leg_timeout=10]sofia/internal/%s@127.0.0.1:26070|Available|%s|3|1|1|1|0|0|0|0|%d|0|%d|0|0|0\n",
				a.user(), a.user(), state, s.eng.boot/second, a.taken)
		}
	case "tier list":
		b.WriteString("queue|agent|state|level|position\n")
		for _, q := range s.opt.Queues {
			for i, a := range s.eng.staff.all {
				fmt.Fprintf(&b, "%s@default|%s@default|Ready|1|%d\n", q, a.user(), i+1)
			}
		}
	default:
		return "-USAGE: callcenter_config <target> <args>\n"
	}
	return b.String() + "+OK\n"
}

func (s *FreeSWITCH) queueList(args []string) string {
	if len(args) >= 2 && args[0] == "members" {
		return s.queueMembersList(strings.TrimSuffix(args[1], "@default"))
	}
	if len(args) >= 1 && args[0] == "agents" {
		return s.callcenter([]string{"agent", "list"})
	}
	var b strings.Builder
	b.WriteString("name|strategy|moh_sound|time_base_score|tier_rules_apply|tier_rule_wait_second|tier_rule_wait_multiply_level|tier_rule_no_agent_no_wait|discard_abandoned_after|abandoned_resume_allowed|max_wait_time|max_wait_time_with_no_agent|max_wait_time_with_no_agent_time_reached|record_template|calls_answered|calls_abandoned|ring_progressively_delay|skip_agents_with_external_calls|agent_no_answer_status\n")
	for _, q := range s.opt.Queues {
		fmt.Fprintf(&b, "%s@default|ring-all|tone_stream://%%(200,1800,440)|system|false|0|false|true|60|false|30|10|5||0|0|10|true|On Break\n", q)
	}
	return b.String() + "+OK\n"
}

func (s *FreeSWITCH) queueMembersList(queue string) string {
	var b strings.Builder
	for _, c := range s.eng.active() {
		w, ok := c.waiter()
		if !ok || w.queue != queue {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("queue|instance_id|uuid|session_uuid|cid_number|cid_name|system_epoch|joined_epoch|rejoined_epoch|bridge_epoch|abandoned_epoch|base_score|skill_score|serving_agent|serving_system|state|score\n")
		}
		fs, _ := jsonFields(string(w.message))
		at := s.eng.stamp(w.joined) / second
		fmt.Fprintf(&b, "%s@default|single_box|%s|%s|%s|%s|%d|%d|0|0|0|0|0|||Waiting|0\n", queue, value(fs, "CC-Member-UUID"), w.id, w.number, w.name, at, at)
	}
	return b.String() + "+OK\n"
}

var reOriginate = regexp.MustCompile(`sofia/[a-z]+/(agent[0-9]+)@`)

// originate rings an agent and dials on.
func (s *FreeSWITCH) originate(rest string) string {
	m := reOriginate.FindStringSubmatch(rest)
	if m == nil {
		return "-ERR CHAN_NOT_IMPLEMENTED\n"
	}
	a := s.eng.staff.named(m[1])
	if a == nil {
		return "-ERR USER_NOT_REGISTERED\n"
	}
	c, err := s.eng.place("click_to_call", s.eng.now(), a)
	if err != nil {
		return "-ERR " + err.Error() + "\n"
	}
	return "+OK " + c.firstLeg() + "\n"
}

// firstLeg is the id of the leg that the call begins with.
func (c *simCall) firstLeg() string {
	for i := range c.sc.steps {
		if n := c.sc.steps[i].leg; n >= 0 {
			return c.vals[n]
		}
	}
	return ""
}

func (s *FreeSWITCH) newUUID() string {
	id := ""
	s.eng.do(s.ctx, func() { id = randomLike(s.eng.side, "16b894de-02df-4902-a4c3-17c2275ab1a2") })
	return id
}

// background sends a BACKGROUND_JOB event with the result.
func (s *FreeSWITCH) background(job, command, result string) {
	verb, rest, _ := strings.Cut(command, " ")
	s.eng.do(s.ctx, func() {
		p := s.common("BACKGROUND_JOB", "mod_event_socket.c", "api_exec", "1572", s.eng.stamp(s.eng.now()))
		p = append(p, "Job-UUID", job, "Job-Command", verb)
		if rest != "" {
			p = append(p, "Job-Command-Arg", rest)
		}
		s.tell("BACKGROUND_JOB", append(p, "Content-Length", strconv.Itoa(len(result)), "_body", result))
	})
}
