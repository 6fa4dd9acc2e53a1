#!/usr/bin/env bash
# Makes the files of e2e/golden again with the original programs.
set -euo pipefail
cd "$(dirname "$0")"
./build.sh
jars=$PWD/java/target
exec "$jars/driver" -classpath "$jars/classes:$jars/lib/*" -goclients "$jars/goclients" -golden "$PWD/golden" "$@"
