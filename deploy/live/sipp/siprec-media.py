#!/usr/bin/env python3
"""Writes the capture that siprec.xml plays: two streams of 5 s of G.711 A-law to ports 4000 and 4002.

The caller's lacks every 20th packet: of 250, 13 are lost. The agent's is whole, and the digit 5 is pressed in it for
100 ms (RFC 4733). siprec-media.py [FILE]
"""
import struct
import sys

PACKETS, PTIME_US, SAMPLES = 250, 20000, 160


def ipv4(payload, port):
    udp = struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([127, 0, 0, 1]), bytes([127, 0, 0, 1]))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + udp


def rtp(kind, seq, stamp, ssrc, payload):
    return struct.pack("!BBHII", 0x80, kind, seq & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + payload


def streams():
    """(time in µs, port, RTP packet), in order of time."""
    tone = bytes(0xD5 ^ (i % 40) for i in range(SAMPLES))
    out = []
    for i in range(PACKETS):
        if i % 20 != 7:
            out.append((i * PTIME_US, 4000, rtp(8, 65400 + i, i * SAMPLES, 0xCA11E401, tone)))
    seq = 100
    for i in range(PACKETS):
        at = i * PTIME_US + PTIME_US // 2
        if 100 <= i < 108:  # five packets while it lasts, and three times its end
            n, end = min(i - 99, 5), i >= 105
            event = struct.pack("!BBH", 5, (0x80 if end else 0) | 10, n * SAMPLES)
            out.append((at, 4002, rtp(101 | (0x80 if i == 100 else 0), seq, 100 * SAMPLES, 0xA6E27001, event)))
        else:
            out.append((at, 4002, rtp(8, seq, i * SAMPLES, 0xA6E27001, tone)))
        seq += 1
    return sorted(out)


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "siprec.pcap"
    with open(name, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for at, port, packet in streams():
            frame = bytes(12) + b"\x08\x00" + ipv4(packet, port)
            f.write(struct.pack("<IIII", at // 1000000, at % 1000000, len(frame), len(frame)) + frame)


main()
