#!/bin/bash
# Starts a real Asterisk for the live tests, on loopback, and prints its process id; kill it to stop.
#
#   asterisk-up.sh [ROOT]     ROOT: where Debian unstable's Asterisk is kept, by default in the cache folder
#
# The first time it is installed into ROOT (70 s; needs root), afterwards it starts in a few seconds. One that runs
# already with the same configuration is kept. SIP is on 127.0.0.1:23060/udp, ARI on 23088, AMI on 23038.
# A copy of all SIP and RTCP goes as HEP to 127.0.0.1:23960/udp, with the key hepsecret, whether anyone listens or not.
#
# ari.conf, http.conf and manager.conf are those of configs/asterisk, with the tests' ports and passwords: what the
# gateway's users are told is what is tested. The user "stage" is the phones', who also place calls and log agents in.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
samples=$here/../../configs/asterisk
root=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/ctigate/asterisk}
pidfile=$root/run/asterisk/asterisk.pid # not var/run: that is a link which leads out of ROOT

say() { echo "asterisk: $*" >&2; }

# patiently runs a command and says so every five seconds.
patiently() {
  local what=$1 began=$SECONDS; shift
  "$@" >>"$root.log" 2>&1 </dev/null &
  local job=$! last=0
  while kill -0 $job 2>/dev/null; do
    sleep 0.5
    if [ $((SECONDS - began)) -ge $((last + 5)) ]; then last=$((SECONDS - began)); say "$what, ${last} s"; fi
  done
  wait $job
}

bootstrap() {
  rm -rf "$root" && mkdir -p "$(dirname "$root")" && : >"$root.log"
  patiently "installing Debian unstable" debootstrap --variant=minbase sid "$root" &&
    patiently "installing Asterisk" chroot "$root" env DEBIAN_FRONTEND=noninteractive \
      apt-get -o Acquire::Retries=3 install -y --no-install-recommends asterisk asterisk-modules &&
    touch "$root/.installed"
}

configure() { # into folder $1
  cp "$here"/asterisk/*.conf "$1/"
  sed 's/^bindport = .*/bindport = 23088/' "$samples/http.conf" >"$1/http.conf"
  printf 'sessionlimit = 2000\n' >>"$1/http.conf" # for the connections that TestReconcile cuts; the default is 100
  sed 's/change-me/gwsecret/' "$samples/ari.conf" >"$1/ari.conf"
  sed 's/change-me/gwsecret/; s/^port = .*/port = 23038/' "$samples/manager.conf" >"$1/manager.conf"
  printf '[stage]\ntype = user\npassword = stagesecret\nread_only = no\n' >>"$1/ari.conf"
  printf '[stage]\nsecret = stagesecret\nread =\nwrite = agent\n' >>"$1/manager.conf"
}

# pid prints the process id of an Asterisk that runs from ROOT.
pid() {
  local p
  p=$(cat "$pidfile" 2>/dev/null) && [ "$(readlink "/proc/$p/root" 2>/dev/null)" = "$(readlink -f "$root")" ] && echo "$p"
}

booted() { chroot "$root" asterisk -rx 'core waitfullybooted' >/dev/null 2>&1; }

"$here/need.sh" debootstrap
if [ ! -e "$root/.installed" ]; then
  bootstrap || { say "that failed, trying once more: $(tail -n 1 "$root.log")"; bootstrap; } ||
    { tail -n 20 "$root.log" >&2; say "could not be installed"; exit 1; }
fi
want=$(mktemp -d)
trap 'rm -rf "$want"' EXIT
configure "$want"
if running=$(pid); then
  same=yes
  for f in "$want"/*; do cmp -s "$f" "$root/etc/asterisk/$(basename "$f")" || same=no; done
  if [ $same = yes ] && booted; then echo "$running"; exit 0; fi
  kill "$running"
  for _ in $(seq 50); do [ -e "/proc/$running" ] || break; sleep 0.1; done
fi
cp "$want"/* "$root/etc/asterisk/"
# As root inside the folder: Asterisk drops the right to read files that other users own.
chroot "$root" sh -c '
  mkdir -p /run/asterisk && rm -f /run/asterisk/*
  chown -R root:root /etc/asterisk /var/lib/asterisk /var/log/asterisk /var/spool/asterisk /run/asterisk
  rm -f /var/lib/asterisk/astdb.sqlite3
  ulimit -n 8192
  cd /; exec setsid asterisk -f </dev/null >/var/log/asterisk/console 2>&1 &'
for i in $(seq 80); do
  if booted && running=$(pid); then echo "$running"; exit 0; fi
  [ $((i % 8)) -ne 0 ] || say "starting, $((i / 4)) s"
  sleep 0.25
done
tail -n 20 "$root/var/log/asterisk/console" >&2
say "did not come up"
exit 1
