#!/usr/bin/env python3
"""Plays calls of a contact centre through the Asterisk that asterisk-up.sh starts.

  play.py SCENARIO ...     the scenarios, one after the other
  play.py --list           their names
  play.py --traffic N      N answered calls of two seconds, a quarter second apart
  play.py --talk N         a call that lasts N seconds
  play.py --via PORT ...   the caller sends to a proxy there, such as kamailio-up.sh's on 25060

The caller is a phone behind the trunk; agent1 and agent2 are phones of the switch. Prints a line when a scenario has
been played; ends with 1 when a call could not be set up as scripted.
"""
import argparse
import base64
import socket
import sys
import time
import urllib.parse
import urllib.request

from phones import Phone

SIP, ARI, AMI = 23060, 23088, 23038
CALLER, AGENT1, AGENT2 = 24060, 24061, 24062
SCENARIOS = {}


class Switch:
    """What a supervisor does on Asterisk."""

    def originate(self, agent, number):
        query = urllib.parse.urlencode({"endpoint": "PJSIP/" + agent, "extension": number, "context": "internal",
                                        "priority": 1, "callerId": '"Click" <5551000>', "timeout": 20})
        login = base64.b64encode(b"stage:stagesecret").decode()
        request = urllib.request.Request("http://127.0.0.1:%d/ari/channels?%s" % (ARI, query), method="POST",
                                         headers={"Authorization": "Basic " + login})
        urllib.request.urlopen(request, timeout=5).close()

    def agent(self, agent, action, *fields):
        login = "Action: Login\r\nUsername: stage\r\nSecret: stagesecret\r\nEvents: off\r\n\r\n"
        what = ["Action: " + action, "Queue: support", "Interface: PJSIP/" + agent, *fields]
        with socket.create_connection(("127.0.0.1", AMI), 5) as k:
            k.sendall((login + "\r\n".join(what) + "\r\n\r\nAction: Logoff\r\n\r\n").encode())
            answer = b""
            while chunk := k.recv(4096):
                answer += chunk
        if answer.count(b"Response: Success") < 2:
            raise RuntimeError("%s of %s: %r" % (action, agent, answer))


class Stage:
    """The phones and the switch; calls[name] lists the dialogs that reached an agent's phone."""

    trunk = SIP  # the port that the caller sends to

    def __init__(self, codecs=("0",), agent_codecs=("0", "8")):
        self.calls = {"agent1": [], "agent2": []}
        self.switch = Switch()
        headers = "X-From: trunk\r\nX-Crm-Id: C-1001\r\n"
        self.caller = Phone("caller", CALLER, self.trunk, 24100, "Alice", codecs, "+14155550100", headers)
        self.agent1 = Phone("agent1", AGENT1, SIP, 24200, "Agent One", agent_codecs)
        self.agent2 = Phone("agent2", AGENT2, SIP, 24300, "Agent Two", ("0", "8"))

    def close(self):
        for phone in (self.caller, self.agent1, self.agent2):
            phone.close()

    def dial(self, number):
        """Calls from the trunk and waits for the answer."""
        d = self.caller.call(number)
        self.connected(d)
        self.caller.talk(d)
        return d

    @staticmethod
    def connected(d):
        if not d.up.wait(12):
            raise RuntimeError("the call to %s was not answered (%s)" % (d.peer, d.final))

    def ended(self, d, code):
        if not d.done.wait(12) or d.final != code:
            raise RuntimeError("the call to %s ended with %s, not %s" % (d.peer, d.final, code))

    def agent_call(self, agent):
        """The newest call on an agent's phone."""
        end = time.time() + 5
        while not self.calls[agent]:
            if time.time() > end:
                raise RuntimeError("no call reached " + agent)
            time.sleep(0.05)
        return self.calls[agent][-1]


def answers(ring=0.5):
    """An agent who lets it ring for so long, then answers; None: who never answers."""
    def script(stage, phone):
        def on_invite(d):
            stage.calls[phone.name].append(d)
            time.sleep(0.05)
            phone.ring(d)
            if ring is not None and not d.done.wait(ring):
                phone.answer(d)
                phone.talk(d)
        return on_invite
    return script


def rejects(code, reason, ring=0.0):
    def script(stage, phone):
        def on_invite(d):
            stage.calls[phone.name].append(d)
            if ring:
                phone.ring(d)
                time.sleep(ring)
            phone.reject(d, code, reason)
        return on_invite
    return script


def busy_once(then):
    """An agent who refuses the first call as busy."""
    def script(stage, phone):
        handle = then(stage, phone)
        first = [True]

        def on_invite(d):
            if first:
                first.clear()
                phone.reject(d, 486, "Busy Here")
            else:
                handle(d)
        return on_invite
    return script


def diverts(number):
    return lambda _stage, phone: lambda d: phone.redirect(d, number)


def scenario(agent1=None, agent2=None, **phones):
    def register(play):
        SCENARIOS[play.__name__] = (play, agent1, agent2, phones)
        return play
    return register


@scenario(agent1=answers())
def inbound_answered_caller_hangup(x):
    d = x.dial("1000")
    x.connected(x.agent_call("agent1"))
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=answers())
def inbound_answered_agent_hangup(x):
    d = x.dial("1000")
    x.connected(x.agent_call("agent1"))
    time.sleep(1.5)
    x.agent1.bye(x.agent_call("agent1"))
    d.done.wait(4)


@scenario(agent1=answers(None))
def abandoned_while_ringing(x):
    d = x.caller.call("1001")
    x.caller.wait(d, lambda m: m.code == 180, 4)
    time.sleep(1.2)
    x.caller.cancel(d)
    x.ended(d, 487)


@scenario(agent1=rejects(486, "Busy Here"))
def busy(x):
    x.ended(x.caller.call("1001"), 486)


@scenario(agent1=rejects(603, "Decline", ring=0.4))
def declined(x):
    x.ended(x.caller.call("1001"), 403)


@scenario(agent1=answers(None))
def no_answer(x):
    x.ended(x.caller.call("1003"), 480)


@scenario()
def unallocated(x):
    x.ended(x.caller.call("9999"), 404)


@scenario(agent1=answers(0.8))
def queue_answered(x):
    d = x.dial("2000")
    x.connected(x.agent_call("agent1"))
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=answers(None))
def queue_abandoned(x):
    d = x.dial("2000")
    x.agent_call("agent1")
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=busy_once(answers()))
def queue_wait_then_answered(x):
    d = x.dial("2000")
    for _ in range(100):
        if x.calls["agent1"]:
            break
        time.sleep(0.2)
    x.connected(x.agent_call("agent1"))
    time.sleep(1.5)
    x.caller.bye(d)


def hold(x, seconds):
    """agent1 holds the call for so long."""
    a = x.agent_call("agent1")
    x.agent1.reinvite(a, "sendonly")
    time.sleep(seconds)
    x.agent1.reinvite(a)


@scenario(agent1=answers())
def hold_retrieve(x):
    d = x.dial("1001")
    time.sleep(1.2)
    hold(x, 1.5)
    time.sleep(1)
    x.caller.bye(d)


@scenario(agent1=answers(1.2))
def midcall_snapshots(x):
    d = x.dial("1001")
    time.sleep(0.8)
    hold(x, 0.7)
    time.sleep(0.5)
    x.caller.bye(d)


@scenario(agent1=answers(), agent2=answers(0.7))
def blind_transfer(x):
    d = x.dial("1001")
    time.sleep(1.2)
    x.agent1.refer(x.agent_call("agent1"), "sip:1002@127.0.0.1:%d" % SIP)
    x.connected(x.agent_call("agent2"))
    time.sleep(1.5)
    x.caller.bye(d)


@scenario(agent1=answers(), agent2=answers(0.7))
def attended_transfer(x):
    d = x.dial("1001")
    time.sleep(1)
    first = x.agent_call("agent1")
    x.agent1.reinvite(first, "sendonly")
    time.sleep(0.3)
    second = x.agent1.call("1002")
    x.connected(second)
    x.agent1.talk(second)
    time.sleep(1.5)
    replaces = "%s;to-tag=%s;from-tag=%s" % (second.call_id, second.remote_tag, second.local_tag)
    x.agent1.refer(first, "sip:1002@127.0.0.1:%d?Replaces=%s" % (SIP, urllib.parse.quote(replaces)))
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=answers())
def ivr_dtmf(x):
    d = x.dial("6000")
    time.sleep(1)
    x.caller.press(d, "4")
    time.sleep(0.3)
    x.caller.press(d, "2")
    x.connected(x.agent_call("agent1"))
    time.sleep(1.5)
    x.caller.bye(d)


@scenario(agent1=answers(None), agent2=answers(0.9))
def ring_group(x):
    d = x.dial("7000")
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=answers(), codecs=("0", "8"))
def codec_change(x):
    d = x.dial("1001")
    time.sleep(1.5)
    x.caller.reinvite(d, codecs=["8"])
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=diverts("1002"), agent2=answers())
def diverted_302(x):
    d = x.dial("1001")
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=answers(0.4), agent2=answers(0.6))
def originate_click_to_call(x):
    x.switch.originate("agent1", "1002")
    x.connected(x.agent_call("agent2"))
    time.sleep(1.5)
    x.agent1.bye(x.agent_call("agent1"))


@scenario(agent1=answers(0.3), agent2=answers(0.3))
def conference(x):
    d = x.dial("5000")
    time.sleep(1)
    for agent in ("agent1", "agent2"):
        x.switch.originate(agent, "5000")
        x.connected(x.agent_call(agent))
        time.sleep(1)
    x.agent2.bye(x.agent_call("agent2"))
    time.sleep(0.7)
    x.caller.bye(d)
    time.sleep(0.5)
    x.agent1.bye(x.agent_call("agent1"))


@scenario(agent1=answers())
def lossy_media(x):
    d = x.caller.call("1001")
    x.connected(d)
    x.caller.talk(d, loss=0.08, jitter=0.03)
    time.sleep(3)
    x.caller.bye(d)


@scenario(agent1=answers(), codecs=("111", "9", "0"), agent_codecs=("111", "9", "0"))
def wideband(x):
    d = x.dial("1001")
    time.sleep(2)
    x.caller.bye(d)


@scenario(agent1=answers(0.3))
def twenty_overlapping_calls(x):
    calls = []
    for _ in range(20):
        calls.append(x.caller.call("1001"))
        time.sleep(0.1)
    for d in calls:
        x.connected(d)
    time.sleep(1)
    for d in calls:
        x.caller.bye(d)
        time.sleep(0.05)


@scenario()
def agent_states(x):
    x.switch.agent("agent1", "QueuePause", "Paused: true", "Reason: lunch")
    time.sleep(0.5)
    x.switch.agent("agent1", "QueuePause", "Paused: false")
    time.sleep(0.5)
    x.switch.agent("agent2", "QueueAdd", "MemberName: Agent Two")
    time.sleep(0.5)
    x.switch.agent("agent2", "QueueRemove")


def perform(play, agent1=None, agent2=None, phones=None):
    x = Stage(**(phones or {}))
    try:
        for phone, script in ((x.agent1, agent1), (x.agent2, agent2)):
            if script:
                phone.on_invite = script(x, phone)
        play(x)
        time.sleep(0.3)  # the last answers arrive
    finally:
        x.close()


def traffic(n):
    def play(x):
        running = []
        for i in range(n + 8):
            if i < n:
                running.append(x.caller.call("1001"))
            if i >= 8:
                x.connected(running[i - 8])
                x.caller.bye(running[i - 8])
            time.sleep(0.25)
    perform(play, agent1=answers(0.1))


def talk(seconds):
    def play(x):
        d = x.dial("1001")
        print("talking", flush=True)
        d.done.wait(seconds)
        if not d.done.is_set():
            x.caller.bye(d)
    perform(play, agent1=answers(0.1))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--list", action="store_true")
    p.add_argument("--traffic", type=int, metavar="N")
    p.add_argument("--talk", type=float, metavar="N")
    p.add_argument("--via", type=int, metavar="PORT", default=SIP)
    p.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    a = p.parse_args()
    Stage.trunk = a.via
    if a.list:
        print("\n".join(SCENARIOS))
    if a.traffic:
        traffic(a.traffic)
    if a.talk:
        talk(a.talk)
    for name in a.scenario:
        began = time.time()
        perform(*SCENARIOS[name])
        print("%s played in %.1f s" % (name, time.time() - began), flush=True)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as e:
        sys.exit("play.py: %s" % e)
