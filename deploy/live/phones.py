"""A small scripted SIP phone (UDP, no authentication) that sends G.711 audio."""
import math
import queue
import random
import re
import socket
import struct
import sys
import threading
import time

RTPMAP = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000", "111": "opus/48000/2", "101": "telephone-event/8000"}


def token(n=10):
    return "".join(random.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(n))


def ulaw(sample):
    """One G.711 mu-law byte (ITU-T G.711) of a 16-bit sample."""
    sign = 0x80 if sample < 0 else 0
    sample = min(abs(sample), 32635) + 0x84
    exponent, mask = 7, 0x4000
    while exponent > 0 and not sample & mask:
        exponent, mask = exponent - 1, mask >> 1
    return ~(sign | (exponent << 4) | ((sample >> (exponent + 3)) & 0x0F)) & 0xFF


# One second of 440 Hz.
TONE = bytes(ulaw(int(8000 * math.sin(2 * math.pi * 440 * i / 8000))) for i in range(8000))


class Message:
    """A SIP request or response (RFC 3261, section 7)."""

    def __init__(self, raw):
        head, _, self.body = raw.decode("utf-8", "replace").partition("\r\n\r\n")
        self.start, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        self.headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
        self.request = not self.start.startswith("SIP/2.0")
        self.code = 0 if self.request else int(self.start.split()[1])
        self.method = self.start.split()[0] if self.request else self.get("cseq").split()[1]

    def get(self, name):
        return next((v for n, v in self.headers if n == name), "")

    def all(self, name):
        return [v for n, v in self.headers if n == name]


def tag(header):
    m = re.search("tag=([^;>]+)", header)
    return m.group(1) if m else ""


def uri(header):
    m = re.search("<([^>]+)>", header)
    return m.group(1) if m else None


class Dialog:
    """One SIP dialog of a phone (RFC 3261, section 12)."""

    def __init__(self, call_id=None):
        self.call_id = call_id or token(16) + "@live"
        self.local_tag, self.remote_tag = token(8), ""
        self.cseq = self.invite_cseq = 0
        self.invite_branch = None  # of the last INVITE we sent
        self.invite = None  # the last INVITE we got
        self.peer, self.target, self.routes = "", None, []
        self.sdp_version = 1
        self.remote_sdp = ""
        self.answers = queue.Queue()
        self.up, self.done = threading.Event(), threading.Event()
        self.final = None
        self.audio = None  # an event that stops the sender

    def stop_audio(self):
        if self.audio:
            self.audio.set()


class Phone:
    """Reads on a thread of its own; on_invite(dialog), when set, is called for each call on another one."""

    def __init__(self, name, port, switch, rtp, display="", codecs=("0",), user=None, headers=""):
        self.name, self.user, self.display, self.headers = name, user or name, display, headers
        self.port, self.switch, self.rtp = port, ("127.0.0.1", switch), rtp
        self.codecs = list(codecs)
        self.me = "<sip:%s@127.0.0.1:%d>" % (self.user, port)
        self.dialogs, self.on_invite, self.closing = {}, None, False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def close(self):
        self.closing = True
        self.thread.join()
        self.socket.close()
        for d in self.dialogs.values():
            d.stop_audio()

    # What a script does.

    def call(self, number):
        d = Dialog()
        d.peer = number
        self.dialogs[d.call_id] = d
        d.invite_branch = self._request(d, "INVITE", self._sdp(d), self.headers)
        d.invite_cseq = d.cseq
        return d

    def cancel(self, d):
        self._request(d, "CANCEL", cseq=d.invite_cseq, branch=d.invite_branch, to_tag=False)

    def ring(self, d):
        self._respond(d.invite, 180, "Ringing", d)

    def answer(self, d):
        self._respond(d.invite, 200, "OK", d, self._sdp(d))
        d.up.wait(3)

    def reject(self, d, code, reason):
        self._respond(d.invite, code, reason, d)
        d.done.set()

    def redirect(self, d, number):
        contact = "<sip:%s@127.0.0.1:%d>" % (number, self.switch[1])
        self._respond(d.invite, 302, "Moved Temporarily", d, contact=contact)

    def reinvite(self, d, direction="sendrecv", codecs=None):
        d.up.clear()
        d.invite_branch = self._request(d, "INVITE", self._sdp(d, direction, codecs))
        d.up.wait(3)

    def bye(self, d):
        self._request(d, "BYE")
        d.stop_audio()
        self.wait(d, lambda m: m.method == "BYE", 2)
        d.done.set()

    def press(self, d, digit):
        self._request(d, "INFO", "Signal=%s\r\nDuration=160\r\n" % digit, kind="application/dtmf-relay")
        self.wait(d, lambda m: m.method == "INFO", 2)

    def refer(self, d, target):
        self._request(d, "REFER", headers="Refer-To: <%s>\r\nReferred-By: %s\r\n" % (target, self.me))
        self.wait(d, lambda m: m.method == "REFER", 2)

    def wait(self, d, wanted, seconds=10):
        """The next message of d that is wanted, or None."""
        end = time.time() + seconds
        while time.time() < end:
            try:
                m = d.answers.get(timeout=max(0.01, end - time.time()))
            except queue.Empty:
                return None
            if wanted(m):
                return m
        return None

    def talk(self, d, loss=0.0, jitter=0.0):
        """Sends audio until the dialog ends, losing a part of the packets and delaying them by up to jitter seconds."""
        m = re.search(r"m=audio (\d+)", d.remote_sdp)
        if m:
            d.audio = threading.Event()
            args = (d.audio, ("127.0.0.1", int(m.group(1))), loss, jitter)
            threading.Thread(target=self._send_audio, args=args, daemon=True).start()

    # How it is done.

    def _send_audio(self, stop, to, loss, jitter):
        chance = random.Random(7)
        seq, stamp, ssrc = random.randrange(60000), random.randrange(1 << 31), random.randrange(1 << 32)
        k = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            k.bind(("127.0.0.1", self.rtp))
        except OSError:
            pass  # another call of this phone has it: any port will do
        due = time.time()
        for i in range(1 << 30):
            if stop.is_set():
                break
            if chance.random() >= loss:
                head = struct.pack("!BBHII", 0x80, 0, (seq + i) & 0xFFFF, (stamp + 160 * i) & 0xFFFFFFFF, ssrc)
                try:
                    k.sendto(head + TONE[i * 160 % 8000:i * 160 % 8000 + 160], to)
                except OSError:
                    pass  # the other end has closed its port
            due += 0.02
            time.sleep(max(0, due - time.time() + chance.uniform(0, jitter)))
        k.close()

    def _sdp(self, d, direction="sendrecv", codecs=None):
        d.sdp_version += 1
        formats = codecs or self.codecs
        lines = ["v=0", "o=live 1 %d IN IP4 127.0.0.1" % d.sdp_version, "s=-", "c=IN IP4 127.0.0.1", "t=0 0",
                 "m=audio %d RTP/AVP %s 101" % (self.rtp, " ".join(formats))]
        lines += ["a=rtpmap:%s %s" % (f, RTPMAP[f]) for f in formats + ["101"]]
        return "\r\n".join(lines + ["a=ptime:20", "a=" + direction, ""])

    def _send(self, lines, body):
        try:
            self.socket.sendto(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), self.switch)
        except OSError:
            pass  # nobody listens: the scenario will notice

    def _request(self, d, method, body="", headers="", kind="application/sdp", cseq=None, branch=None, to_tag=True):
        if cseq is None:
            d.cseq += 1
            cseq = d.cseq
        branch = branch or "z9hG4bK" + token(12)
        switch = "127.0.0.1:%d" % self.switch[1]
        lines = ["%s %s SIP/2.0" % (method, d.target or "sip:%s@%s" % (d.peer, switch)),
                 "Via: SIP/2.0/UDP 127.0.0.1:%d;rport;branch=%s" % (self.port, branch)]
        lines += ["Route: " + r for r in d.routes]
        lines += ["From: %s%s;tag=%s" % ('"%s" ' % self.display if self.display else "", self.me, d.local_tag),
                  "To: <sip:%s@%s>%s" % (d.peer, switch, ";tag=" + d.remote_tag if d.remote_tag and to_tag else ""),
                  "Call-ID: " + d.call_id, "CSeq: %d %s" % (cseq, method), "Contact: " + self.me, "Max-Forwards: 70"]
        lines += headers.split("\r\n")[:-1]
        if body:
            lines.append("Content-Type: " + kind)
        self._send(lines + ["Content-Length: %d" % len(body)], body)
        return branch

    def _respond(self, m, code, reason, d=None, body="", contact=None):
        to = m.get("to")
        if d and ";tag=" not in to:
            to += ";tag=" + d.local_tag
        lines = ["SIP/2.0 %d %s" % (code, reason)]
        lines += ["Via: " + v for v in m.all("via")] + ["Record-Route: " + v for v in m.all("record-route")]
        lines += ["From: " + m.get("from"), "To: " + to, "Call-ID: " + m.get("call-id"), "CSeq: " + m.get("cseq"),
                  "Contact: " + (contact or self.me)]
        if body:
            lines.append("Content-Type: application/sdp")
        self._send(lines + ["Content-Length: %d" % len(body)], body)

    def _read(self):
        while not self.closing:
            try:
                m = Message(self.socket.recvfrom(65535)[0])
            except TimeoutError:
                continue
            except OSError:
                return
            d = self.dialogs.get(m.get("call-id"))
            try:
                self._on_request(m, d) if m.request else self._on_response(m, d)
            except Exception as e:  # a phone that stops reading would hide what went wrong
                print("phone %s: %r while handling %s" % (self.name, e, m.start), file=sys.stderr, flush=True)

    def _on_request(self, m, d):
        if m.method == "INVITE":
            self._on_invite(m, d)
        elif m.method == "ACK":
            if d:
                d.up.set()
        else:
            self._respond(m, 200, "OK", d)
            if d is None:
                return
            if m.method == "CANCEL":
                self._respond(d.invite, 487, "Request Terminated", d)
                d.final = 487
            if m.method in ("CANCEL", "BYE"):
                d.stop_audio()
                d.done.set()

    def _on_invite(self, m, d):
        if d is None:
            d = Dialog(m.get("call-id"))
            self.dialogs[d.call_id] = d
            d.invite, d.remote_sdp = m, m.body
            d.remote_tag, d.target, d.routes = tag(m.get("from")), uri(m.get("contact")), m.all("record-route")
            d.peer = re.search("sip:([^@]+)@", m.get("from") + " sip:x@").group(1)
            self._respond(m, 100, "Trying")
            if self.on_invite:
                threading.Thread(target=self.on_invite, args=(d,), daemon=True).start()
        elif d.invite is None or d.invite.get("cseq") != m.get("cseq"):  # else it is sent again
            d.invite, d.remote_sdp = m, m.body or d.remote_sdp
            self._respond(m, 200, "OK", d, self._sdp(d, "recvonly" if "a=sendonly" in m.body else "sendrecv"))

    def _on_response(self, m, d):
        if d is None or m.code < 180:
            return
        if m.method == "INVITE":
            self._on_invite_response(m, d)
        d.answers.put(m)

    def _on_invite_response(self, m, d):
        d.remote_tag = tag(m.get("to")) or d.remote_tag
        cseq = int(m.get("cseq").split()[0])
        if m.code < 200:
            return
        d.final = m.code
        if m.code < 300:
            d.target = uri(m.get("contact")) or d.target
            d.routes = list(reversed(m.all("record-route"))) or d.routes
            d.remote_sdp = m.body
            self._request(d, "ACK", cseq=cseq)
            d.up.set()
        else:  # the ACK belongs to the INVITE's transaction (RFC 3261, section 17.1.1.3)
            target, d.target = d.target, None
            self._request(d, "ACK", cseq=cseq, branch=d.invite_branch)
            d.target = target
            d.done.set()
