#!/bin/bash
# Starts a real Apache Kafka (KRaft, one node) for the live tests, on loopback, and prints its process id; kill it to
# stop.
#
#   kafka-up.sh DIR     DIR: its data, certificates and log; made if missing, kept if there
#
# Listeners: 29192 plain, 29194 SASL (PLAIN and SCRAM: user gw, password gwsecret), 29195 mutual TLS with the
# certificates of DIR/tls (ca.pem, client.pem, client.key). Needs Java 17; Maven fetches Kafka. A broker that another
# call left running is stopped first, unless it has the same DIR: then it is kept.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: kafka-up.sh DIR}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ctigate
mkdir -p "$dir" "$cache"
dir=$(cd "$dir" && pwd)
pidfile=$cache/kafka.pid # line 1 the process, line 2 its DIR

say() { echo "kafka: $*" >&2; }

# ours prints the process id of the broker an earlier call started, if it is alive.
ours() {
  local p
  p=$(sed -n 1p "$pidfile" 2>/dev/null) && [ -n "$p" ] && grep -qz '^kafka\.Kafka$' "/proc/$p/cmdline" 2>/dev/null && echo "$p"
}

certificates() { # a CA, and with it a server's and a client's certificate, as PEM
  local tls=$dir/tls who
  [ -s "$tls/client.pem" ] && return
  mkdir -p "$tls"
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=ctigate live tests' -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
  for who in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$who" -keyout "$tls/$who.key" -out "$tls/$who.csr" 2>/dev/null
    openssl x509 -req -in "$tls/$who.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 30 \
      -extfile <(echo 'subjectAltName=IP:127.0.0.1,DNS:localhost') -out "$tls/$who.pem" 2>/dev/null
  done
  cat "$tls/server.key" "$tls/server.pem" >"$tls/server-keystore.pem"
}

java_() { java -cp "$classpath" -Dlog4j2.configurationFile="$here/kafka/log4j2.xml" "$@"; }

format() {
  [ -e "$dir/data/meta.properties" ] && return
  say "formatting $dir/data"
  java_ kafka.tools.StorageTool format -c "$dir/server.properties" -t ctigatelivetests000001 \
    --add-scram 'SCRAM-SHA-256=[name=gw,password=gwsecret]' --add-scram 'SCRAM-SHA-512=[name=gw,password=gwsecret]' \
    >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; exit 1; }
}

answers() { (exec 3<>/dev/tcp/127.0.0.1/29192) 2>/dev/null && grep -q 'Kafka Server started' "$dir/broker.log"; }

if running=$(ours); then
  if [ "$(sed -n 2p "$pidfile")" = "$dir" ] && answers; then echo "$running"; exit 0; fi
  say "stopping the broker of an earlier run"
  kill -9 "$running"
  while [ -e "/proc/$running" ]; do sleep 0.1; done
fi
if (exec 3<>/dev/tcp/127.0.0.1/29192) 2>/dev/null; then
  say "something else listens on 127.0.0.1:29192: stop it first"
  exit 1
fi
"$here/need.sh" openssl
classpath=$("$here/kafka/classpath.sh" "$dir/maven.log")
certificates
sed "s#@DIR@#$dir#g" "$here/kafka/server.properties" >"$dir/server.properties"
format
: >"$dir/broker.log"
setsid java -Xms512m -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -cp "$classpath" \
  -Dlog4j2.configurationFile="$here/kafka/log4j2.xml" kafka.Kafka "$dir/server.properties" >>"$dir/broker.log" 2>&1 </dev/null &
pid=$!
printf '%s\n%s\n' $pid "$dir" >"$pidfile"
for i in $(seq 240); do
  if answers; then echo $pid; exit 0; fi
  [ -e /proc/$pid ] || break
  [ $((i % 8)) -ne 0 ] || say "starting, $((i / 4)) s"
  sleep 0.25
done
tail -n 30 "$dir/broker.log" >&2
say "did not come up"
exit 1
