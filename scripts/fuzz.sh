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
  # Before Go 1.27 the end of the time itself is now and then reported as a failure (go.dev/issue/75804). A target
  # that hangs is reported in other words, and a finding names the input that it wrote down.
  if [ "$status" -ne 0 ] && deadline_only "$out"; then
    echo "=== $name: the time was over, nothing was found (go.dev/issue/75804)"
    status=0
  fi
  return "$status"
}

# deadline_only OUTPUT: the one failure is "context deadline exceeded", and there is no failing input.
deadline_only() {
  ! grep -qE 'Failing input written|panic|^ +[^ ].*_test\.go:' <<<"$1" &&
    [ "$(grep -c -- '^ *--- FAIL' <<<"$1")" -eq 1 ] &&
    grep -A1 -- '^--- FAIL' <<<"$1" | tail -n 1 | grep -qx ' *context deadline exceeded'
}
export -f one deadline_only

xargs -d '\n' -P "$(nproc)" -I '{}' bash -c 'one "$1"' one '{}' <<<"$targets"
echo "$(wc -l <<<"$targets") fuzz targets, nothing found"
