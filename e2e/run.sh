#!/usr/bin/env bash
# Runs the end-to-end suite. E2E_TARGET=ringmq (default) or java: what is tested. Arguments go to the driver, for example
# -only java-json,go or -keep. See README.md.
set -euo pipefail
ringmq=$(realpath -m "${RINGMQ:-$(dirname "$0")/../bin/ringmq}")
cd "$(dirname "$0")"
target=${E2E_TARGET:-ringmq}
for tool in java javac mvn go; do
  command -v $tool >/dev/null || { echo "e2e: $tool is not installed: the official clients need a JDK 17, Maven and Go" >&2; exit 1; }
done
classes=$PWD/$(./build.sh)
jars=$PWD/java/target
exec "$jars/driver" -target "$target" -classpath "$classes:$jars/lib/*" -goclients "$jars/goclients" \
  -ringmq "$ringmq" "$@"
