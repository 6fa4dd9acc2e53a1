#!/usr/bin/env bash
# Fetches the official jars with Maven, once, and compiles the test programs, all into java/target (ignored by git).
# Prints the folder of the compiled classes.
set -euo pipefail
cd "$(dirname "$0")"
target=java/target
mkdir -p $target
if [ ! -e $target/fetched ] || [ java/pom.xml -nt $target/fetched ]; then
  rm -rf $target/lib
  (cd java && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory=target/lib) >&2 # the answer alone goes to standard output
  touch $target/fetched
fi
# The folder is named by its sources, so that a run in progress keeps its classes when another one compiles new ones.
classes=$target/classes-$(cat java/src/ringmq/e2e/*.java | sha256sum | cut -c1-12)
if [ ! -d "$classes" ]; then
  new=$(mktemp -d $target/new.XXXXXX)
  javac -nowarn -Xlint:-deprecation -Xlint:-options -d "$new" -cp "$target/lib/*" java/src/ringmq/e2e/*.java >"$new.log" 2>&1 ||
    { cat "$new.log" >&2; exit 1; }
  rm -f "$new.log"
  mv -T "$new" "$classes" 2>/dev/null || rm -rf "$new" # another run was first
fi
(cd go && go build -o ../$target/driver ./driver && go build -o ../$target/goclients ./clients)
echo "$classes"
