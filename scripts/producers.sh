#!/usr/bin/env bash
# Makes examples/producers ready to run, in .services/producers: a Python environment and the Go program. What is there and
# up to date stays as it is.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/.services/producers
python=$root/examples/producers/python
go=$root/examples/producers/go

mkdir -p "$dir"
exec 9> "$dir/lock"; flock 9

if ! cmp -s "$python/requirements.txt" "$dir/python/installed.txt"; then
  rm -rf "$dir/python"
  python3 -m venv "$dir/python"
  "$dir/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$python/requirements.txt" >&2
  cp "$python/requirements.txt" "$dir/python/installed.txt"
fi
cd "$go" && go build -o "$dir/publish-go" .
