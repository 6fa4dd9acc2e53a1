#!/usr/bin/env bash
# Makes the files of e2e/golden again with the original programs.
set -euo pipefail
cd "$(dirname "$0")"
classes=$PWD/$(./build.sh)
jars=$PWD/java/target
exec "$jars/driver" -classpath "$classes:$jars/lib/*" -goclients "$jars/goclients" -golden "$PWD/golden" "$@"
