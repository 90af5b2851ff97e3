#!/bin/bash
# Prints the class path of a real Apache Kafka, which Maven fetches once for each pom.xml. LOG: where Maven writes.
#
#   classpath.sh LOG
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
log=${1:?usage: classpath.sh LOG}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ctigate
file=$cache/kafka-classpath
mkdir -p "$cache"
if [ -s "$file" ] && [ "$file" -nt "$here/pom.xml" ]; then
  all=yes
  while read -r jar; do [ -s "$jar" ] || all=no; done < <(tr ':' '\n' <"$file")
  [ $all = no ] || { cat "$file"; exit 0; }
fi
echo "kafka: fetching Kafka with Maven" >&2
for try in 1 2 3; do
  if mvn -B -q -f "$here/pom.xml" dependency:build-classpath -Dmdep.outputFile="$file" >"$log" 2>&1 </dev/null; then
    cat "$file"
    exit 0
  fi
  echo "kafka: Maven failed (attempt $try): $(grep -m 1 ERROR "$log")" >&2
  sleep 3
done
exit 1
