#!/bin/bash
# Installs the Debian packages whose commands are missing: need.sh COMMAND[=PACKAGE] ... ; python:MODULE=PACKAGE for a
# module of /usr/bin/python3. Does nothing when all are there. Needs root otherwise.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
missing=()
for want in "$@"; do
  command=${want%%=*} package=${want#*=}
  case $command in
    python:*) /usr/bin/python3 -c "import ${command#python:}" 2>/dev/null || missing+=("$package") ;;
    *) command -v "$command" >/dev/null || missing+=("$package") ;;
  esac
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
install() {
  apt-get -o Acquire::Retries=3 update -qq && apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends "${missing[@]}"
}
for attempt in 1 2 3; do
  if install >"$log" 2>&1 </dev/null; then rm -f "$log"; exit 0; fi
  echo "attempt $attempt failed: $(tail -n 1 "$log")" >&2
  sleep 5
done
cat "$log" >&2
exit 1
