#!/usr/bin/env bash
# Runs every fuzz target of the module for the time given (default 30s), one on each core.
set -euo pipefail
cd "$(dirname "$0")/.."
export time=${1:-30s} GO=${GO:-go}

targets=$(grep -rEo --include='*_test.go' --exclude-dir=e2e --exclude-dir=testdata '^func Fuzz[A-Za-z0-9_]*' . | sort)
if [ -z "$targets" ]; then
  echo "no fuzz targets found" >&2
  exit 1
fi

# one FILE:func NAME: its output is printed when it is over, so that targets do not mix.
one() {
  local file=${1%%:*} name=${1##*func } out status=0
  out=$("$GO" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 1 "$(dirname "$file")" 2>&1) || status=$?
  printf '=== %s in %s, %s\n%s\n' "$name" "$(dirname "$file")" "$time" "$(tail -n 40 <<<"$out")"
  return "$status"
}
export -f one

xargs -d '\n' -P "$(nproc)" -I '{}' bash -c 'one "$1"' one '{}' <<<"$targets"
echo "$(wc -l <<<"$targets") fuzz targets, nothing found"
