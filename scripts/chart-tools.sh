#!/usr/bin/env bash
# Runs a command with the tools of the chart's tests on its path, which are put into .services/chart first:
# Helm, built by Go, and Python with the packages of tests/deploy/requirements.txt.   chart-tools.sh COMMAND…
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/.services/chart
helm_version=v3.19.0
wanted=$root/tests/deploy/requirements.txt

mkdir -p "$dir"
exec 9> "$dir/lock"; flock 9

fail() { echo "chart-tools: $1 failed; see $dir/install.log" >&2; tail -n 5 "$dir/install.log" >&2; exit 1; }

# What says that a tool is there is written last, so an interrupted installation is seen.
if [ "$(cat "$dir/helm.version" 2> /dev/null)" != "$helm_version" ]; then
  echo "chart-tools: building Helm $helm_version (once, some minutes)" >&2
  GOBIN=$dir/bin GOFLAGS=-modcacherw nice go install "helm.sh/helm/v3/cmd/helm@$helm_version" > "$dir/install.log" 2>&1 9>&- || fail "building Helm"
  echo "$helm_version" > "$dir/helm.version"
fi
if ! cmp -s "$wanted" "$dir/venv/requirements.txt"; then
  echo "chart-tools: installing Python packages" >&2
  rm -rf "$dir/venv"
  { python3 -m venv "$dir/venv" && "$dir/venv/bin/pip" install -q --disable-pip-version-check -r "$wanted"; } \
    > "$dir/install.log" 2>&1 9>&- || fail "installing Python packages"
  cp "$wanted" "$dir/venv/requirements.txt"
fi
exec 9>&-
# Helm keeps nothing outside.
export HELM_CONFIG_HOME=$dir/helm HELM_CACHE_HOME=$dir/helm HELM_DATA_HOME=$dir/helm
PATH=$dir/bin:$dir/venv/bin:$PATH exec "$@"
