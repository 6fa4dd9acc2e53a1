#!/usr/bin/env bash
# Fetches the official jars with Maven, once, and compiles the test programs into java/target (ignored by git).
set -euo pipefail
cd "$(dirname "$0")"
target=java/target
mkdir -p $target
if [ ! -e $target/fetched ] || [ java/pom.xml -nt $target/fetched ]; then
  rm -rf $target/lib
  (cd java && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory=target/lib)
  touch $target/fetched
fi
rm -rf $target/classes
javac -nowarn -Xlint:-deprecation -Xlint:-options -d $target/classes -cp "$target/lib/*" java/src/ringmq/e2e/*.java 2>&1 |
  grep -v '^Note:' >&2 || [ "${PIPESTATUS[0]}" -eq 0 ]
(cd go && go build -o ../$target/driver ./driver && go build -o ../$target/goclients ./clients)
