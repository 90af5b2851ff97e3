#!/bin/bash
# Starts a real Kamailio for the live tests, on loopback, and prints its process id; kill it to stop.
#
#   kamailio-up.sh DIR     DIR: its log and pid file; made if missing
#
# It is a proxy: SIP to 127.0.0.1:25060 (udp and tcp) goes on to the live Asterisk, and a copy of each message goes as
# HEP to 127.0.0.1:23961 with the key hepsecret. HEP_VERSION=1 or 2 makes it the older forms. One that an earlier call
# left running is stopped first.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: kamailio-up.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
pidfile=${XDG_CACHE_HOME:-$HOME/.cache}/ctigate/kamailio.pid
mkdir -p "$(dirname "$pidfile")"

say() { echo "kamailio: $*" >&2; }

# ours prints the process id of the Kamailio an earlier call started, if it is alive.
ours() {
  local p
  p=$(cat "$pidfile" 2>/dev/null) && [ -n "$p" ] && grep -qz "^$pidfile$" "/proc/$p/cmdline" 2>/dev/null && echo "$p"
}

"$here/need.sh" kamailio
if running=$(ours); then
  kill "$running"
  for _ in $(seq 50); do [ -e "/proc/$running" ] || break; sleep 0.1; done
fi
rm -f "$pidfile"
sed "s/!HEP_VERSION!3!/!HEP_VERSION!${HEP_VERSION:-3}!/" "$here/kamailio/kamailio.cfg" >"$dir/kamailio.cfg"
setsid kamailio -f "$dir/kamailio.cfg" -P "$pidfile" -Y "$dir" -m 32 -M 4 >"$dir/kamailio.log" 2>&1 </dev/null &
for i in $(seq 60); do
  if running=$(ours) && grep -qi ":$(printf %04X 25060) " /proc/net/udp; then echo "$running"; exit 0; fi
  sleep 0.25
done
tail -n 20 "$dir/kamailio.log" >&2
say "did not come up"
exit 1
