#!/usr/bin/env python3
"""Prints what the packets of a capture alone say of every SIP dialog, as a JSON list (needs tshark).

  wire.py FILE.pcap

Times are Unix seconds at the capture point. "ended_at" is the first BYE, CANCEL or final error, or the switch's answer
to a REFER: who has passed a call on is out of it, though the dialog stays for news of the transfer. Where the switch, which
is at port 23060, acted on a packet later than it came (its ACK of a 200, its answer to a BYE), "acted" has the times
it acted: a busy machine lets it wait.
"""
import json
import subprocess
import sys

SWITCH = 23060
FIELDS = ["frame.time_epoch", "sip.Call-ID", "sip.Method", "sip.Status-Code", "sip.CSeq.method", "sip.CSeq.seq",
          "udp.srcport"]


def packets(path):
    command = ["tshark", "-r", path, "-d", "udp.port==%d,sip" % SWITCH, "-Y", "sip", "-T", "fields",
               "-E", "separator=\t", "-E", "occurrence=f"]
    for f in FIELDS:
        command += ["-e", f]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        row = dict(zip(FIELDS, line.split("\t")))
        if row["sip.Call-ID"]:
            yield (row["sip.Call-ID"], float(row["frame.time_epoch"]), row["sip.Method"], int(row["sip.Status-Code"] or 0),
                   row["sip.CSeq.method"], row["sip.CSeq.seq"], int(row["udp.srcport"]))


def dialogs(path):
    found = {}
    for call_id, at, method, code, of, seq, source in packets(path):
        d = found.setdefault(call_id, {"call_id": call_id, "invite_at": None, "ringing_at": 0, "answered_at": 0,
                                       "ended_at": 0, "final_code": 0, "acted": {}})
        first = d["invite_at"] is None or seq == d["invite_seq"]
        if method == "INVITE" and d["invite_at"] is None:
            d["invite_at"], d["invite_seq"] = at, seq
        elif method in ("BYE", "CANCEL"):
            d["ended_at"] = d["ended_at"] or at
        elif method == "ACK" and first and source == SWITCH and d["answered_at"]:
            d["acted"].setdefault("answered_at", at)
        elif of in ("BYE", "CANCEL") and code >= 200 and source == SWITCH:
            d["acted"].setdefault("ended_at", at)
        elif of == "REFER" and 200 <= code < 300:
            d["ended_at"] = d["ended_at"] or at
        elif of == "INVITE" and first and code >= 180:
            respond(d, at, code)
    return [d for d in found.values() if d.pop("invite_seq", None)]


def respond(d, at, code):
    if code < 200:
        d["ringing_at"] = d["ringing_at"] or at
    elif code < 300:
        d["answered_at"], d["final_code"] = d["answered_at"] or at, code
    elif not d["answered_at"]:
        d["final_code"] = d["final_code"] or code
        d["ended_at"] = d["ended_at"] or at


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    json.dump(dialogs(sys.argv[1]), sys.stdout, indent=1)
