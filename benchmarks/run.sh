#!/usr/bin/env bash
# Runs ringmq and Apache RocketMQ 5.5.0 side by side and keeps the result under benchmarks/results. `make bench-peers` calls it;
# arguments go to the program: benchmarks/run.sh --quick, --help for the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p benchmarks/work
"${GO:-go}" build -o benchmarks/work/peers ./benchmarks/peers
exec benchmarks/work/peers "$@"
