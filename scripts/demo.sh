#!/usr/bin/env bash
# Starts `ringmq standalone` on its default ports with a data directory of its own, sends and consumes real messages for
# about ten seconds, and stops it again. The exit status is that of the load generator, which checks every message.
set -euo pipefail
cd "$(dirname "$0")/.."
ringmq=${1:-bin/ringmq}
duration=${DURATION:-10s}
namesrv=127.0.0.1:9876
broker=127.0.0.1:10911

# answers ADDRESS: whether something accepts connections there.
answers() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null; }

for address in "$namesrv" "$broker"; do
  if answers "$address"; then
    echo "demo: something listens on $address already; stop it first" >&2
    exit 1
  fi
done

data=$(mktemp -d "${TMPDIR:-/tmp}/ringmq-demo.XXXXXX")
log=$data/ringmq.log
pid=
finish() {
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  fi
  rm -rf "$data"
}
trap finish EXIT
trap 'exit 130' INT TERM

echo "starting $ringmq standalone, data in $data"
"$ringmq" standalone --data "$data/data" >"$log" 2>&1 &
pid=$!

for ((tries = 0; ; tries++)); do
  if grep -q "^ringmq standalone is ready" "$log"; then
    break
  fi
  if ! kill -0 "$pid" 2>/dev/null || [ "$tries" -ge 200 ]; then
    echo "demo: ringmq did not get ready; its log:" >&2
    cat "$log" >&2
    exit 1
  fi
  sleep 0.05
done

echo "sending and consuming for $duration"
status=0
"$ringmq" perf e2e --namesrv "$namesrv" --duration "$duration" || status=$?
if [ "$status" -ne 0 ]; then
  echo "demo: the load generator ended with status $status; ringmq's log:" >&2
  tail -n 50 "$log" >&2
fi
exit "$status"
