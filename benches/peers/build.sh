#!/usr/bin/env bash
# Builds the other consumers that `make bench-peers` measures, into target/peers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/target/peers
mkdir -p "$out"
for peer in spring connect parallel-consumer; do
  mvn -q -B -f "$here/$peer/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$out/$peer/libs"
  javac -parameters -cp "$out/$peer/libs/*" -d "$out/$peer/classes" "$here/$peer"/src/main/java/peers/*.java
done
cp "$here/spring/src/main/resources/application.yml" "$out/spring/classes/"
cp "$here"/connect/*.properties "$out/connect/"
CARGO_TARGET_DIR=$out/arroyo cargo build --release --manifest-path "$here/arroyo/Cargo.toml"
