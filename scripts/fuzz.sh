#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for the time given (default 30s).
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}

targets=$(grep -rEo --include='*_test.go' --exclude-dir=e2e --exclude-dir=testdata '^func Fuzz[A-Za-z0-9_]*' . | sort)
if [ -z "$targets" ]; then
  echo "no fuzz targets found" >&2
  exit 1
fi

while IFS=: read -r file function; do
  name=${function#func }
  echo "=== $name in $(dirname "$file"), $time"
  "${GO:-go}" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$(dirname "$file")"
done <<<"$targets"
echo "$(wc -l <<<"$targets") fuzz targets, nothing found"
