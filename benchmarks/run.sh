#!/usr/bin/env bash
# Runs ringmq and other brokers side by side and keeps the result under benchmarks/results. `make bench-peers` calls it; arguments
# go to the program: benchmarks/run.sh -scenario closed-1k -peers ringmq,java,control -rounds 3, -short to try, -list, -help.
# docs/benchmarks.md tells what comes out.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in java mvn; do
  command -v $tool >/dev/null || echo "benchmarks: $tool is not installed; without a JDK 17 and Maven leave java and kafka out of -peers" >&2
done
# Many queues are many files.
ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
mkdir -p benchmarks/scratch
# A module of its own, so that go test ./... does not walk through stores that come and go.
[ -e benchmarks/scratch/go.mod ] || echo "module scratch" >benchmarks/scratch/go.mod
"${GO:-go}" build -o benchmarks/scratch/peers ./benchmarks/peers
exec benchmarks/scratch/peers "$@"
