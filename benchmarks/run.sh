#!/usr/bin/env bash
# Runs ringmq and Apache RocketMQ 5.5.0 side by side and keeps the result under benchmarks/results. `make bench-peers` calls it;
# arguments go to the program: benchmarks/run.sh --quick, --help for the rest. docs/benchmarks.md tells what comes out.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in java mvn; do
  command -v $tool >/dev/null || echo "benchmarks: $tool is not installed; without a JDK 17 and Maven only --servers ringmq,control runs" >&2
done
mkdir -p benchmarks/scratch
"${GO:-go}" build -o benchmarks/scratch/peers ./benchmarks/peers
exec benchmarks/scratch/peers "$@"
