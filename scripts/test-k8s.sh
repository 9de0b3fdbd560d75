#!/usr/bin/env bash
# The chart on a real Kubernetes API server and its etcd, which are started for the tests and end with them. There are no
# controllers and no nodes: what is made stays as it was made. The server is built once, which takes some minutes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/.services/chart
kubernetes=v1.36.3

# A module that needs Kubernetes gets no parts of it: Kubernetes' own replaces them by folders. So each is named here, as released.
build_server() {
  local source=$dir/kube-apiserver.src list part
  if [ "$(cat "$dir/kube-apiserver.version" 2> /dev/null)" = "$kubernetes" ]; then return; fi
  echo "test-k8s: building kube-apiserver $kubernetes (once, some minutes)" >&2
  rm -rf "$source"; mkdir -p "$source" "$dir/bin"
  (
    cd "$source"
    go mod init weir.test/kube-apiserver
    list=$(go mod download -json "k8s.io/kubernetes@$kubernetes" | python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])')
    go mod edit -require="k8s.io/kubernetes@$kubernetes"
    sed -nE 's|^[[:space:]]*(k8s.io/[a-z-]+) v0\.0\.0( //.*)?$|\1|p' "$list" | sort -u | while read -r part; do
      go mod edit -replace="$part=$part@v0.${kubernetes#v1.}"
    done
    # Helm asks the server for its version, which is told to the linker.
    nice go build -mod=mod -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes" \
      -o "$dir/bin/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver
  ) > "$dir/kube-apiserver.log" 2>&1 || { tail -n 5 "$dir/kube-apiserver.log" >&2; echo "test-k8s: see $dir/kube-apiserver.log" >&2; exit 1; }
  echo "$kubernetes" > "$dir/kube-apiserver.version"
}

build_server
export PYTHONPATH=$root/tests/deploy PYTHONDONTWRITEBYTECODE=1
cd "$root"
exec scripts/chart-tools.sh python -m unittest -v cluster
