#!/usr/bin/env bash
# Makes sure that this machine has what some purposes need:   require.sh PURPOSE…
# PURPOSE: build services peers faults browser producers monitoring chart etcd
# As root on Debian it installs what is missing; elsewhere it names all of it in one message and fails.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
log=$root/.services/install.log
policy=/usr/sbin/policy-rc.d

# Asks once for everything, so that nobody installs one package, tries again, and learns of the next.
missing=() debian=() fedora=()
need() { # what, Debian's package, Fedora's package, the command that succeeds where it is present
  if "${@:4}" > /dev/null 2>&1; then return; fi
  missing+=("$1") debian+=("$2") fedora+=("$3")
}

has() { command -v "$1"; }
has_openssl() { [ -n "${OPENSSL_DIR:-}" ] || [ -e /usr/include/openssl/ssl.h ] || pkg-config --exists openssl; }
has_postgres() { ls /usr/lib/postgresql/*/bin/initdb || has initdb; }
has_mariadb() { has mariadb-install-db && has mariadb && { has mariadbd || [ -x /usr/sbin/mariadbd ] || [ -x /usr/libexec/mariadbd ]; }; }
has_pgbouncer() { has pgbouncer || [ -x /usr/sbin/pgbouncer ]; }
has_java() { [ "$(java -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p')" -ge 17 ]; }
has_go() { [ "$(go env GOVERSION | sed -nE 's/^go1\.([0-9]+).*/\1/p')" -ge 24 ]; }
has_venv() { python3 -c 'import ensurepip, sys, tomllib, venv'; }
has_chromium() { has chromium || has chromium-browser || has google-chrome; }

look() {
  missing=() debian=() fedora=()
  local purpose
  for purpose in "$@"; do
    case $purpose in
      build)
        need "a C compiler" gcc gcc has cc
        need "a C++ compiler" g++ gcc-c++ has c++
        need make make make has make
        need pkg-config pkg-config pkgconf-pkg-config has pkg-config
        need "OpenSSL's headers" libssl-dev openssl-devel has_openssl ;;
      services)
        need "Java 17 or newer" "$(java_package)" java-21-openjdk-headless has_java
        need Maven maven maven has mvn
        need PostgreSQL postgresql postgresql-server has_postgres
        need MariaDB mariadb-server mariadb-server has_mariadb
        need Redis redis-server redis has redis-server
        need PgBouncer pgbouncer pgbouncer has_pgbouncer
        need "Python 3" python3 python3 has python3
        need setpriv util-linux util-linux has setpriv
        need flock util-linux util-linux-core has flock ;;
      peers)
        need "a Java compiler" "$(java_package jdk)" java-21-openjdk-devel has javac
        need "libcurl's headers" libcurl4-openssl-dev libcurl-devel pkg-config --exists libcurl ;;
      faults)
        need faketime faketime libfaketime has faketime ;;
      browser)
        need Chromium chromium chromium has_chromium ;;
      producers)
        need "Python 3.11 or newer, with venv" python3-venv python3 has_venv
        need "Go 1.24 or newer" golang-go golang has_go ;;
      monitoring)
        need "Prometheus and promtool" prometheus golang-github-prometheus has promtool ;;
      chart)
        need "Go 1.24 or newer" golang-go golang has_go
        need "Python 3.11 or newer, with venv" python3-venv python3 has_venv ;;
      etcd)
        need etcd etcd-server etcd has etcd
        need openssl openssl openssl has openssl ;;
      *) echo "usage: require.sh build | services | peers | faults | browser | producers | monitoring | chart | etcd …" >&2; exit 2 ;;
    esac
  done
}

# The oldest Java that runs Kafka 4, where the distribution still has it.
java_package() { # jre (by default) or jdk
  local kind=${1:-jre}
  if apt-cache show "openjdk-17-$kind-headless" > /dev/null 2>&1; then
    echo "openjdk-17-$kind-headless"
  else
    echo "openjdk-21-$kind-headless"
  fi
}

tell() {
  {
    printf 'missing:'; printf ' %s;' "${missing[@]}"; echo
    if [ ${#debian[@]} -gt 0 ]; then
      echo "  Debian, Ubuntu: sudo apt-get install ${debian[*]}"
      echo "  Fedora:         sudo dnf install ${fedora[*]}"
    fi
  } >&2
}

forget_policy() {
  if [ -e "$policy.weir" ]; then mv -f "$policy.weir" "$policy"; return; fi
  if grep -qs "weir's installation" "$policy"; then rm -f "$policy"; fi
}

# Debian starts what it installs. A policy that forbids it keeps the rest of the machine as it was.
forbid_starting() {
  forget_policy # what an installation that was killed left behind
  trap forget_policy EXIT
  if [ -e "$policy" ]; then mv "$policy" "$policy.weir"; fi
  printf "#!/bin/sh\n# for the time of weir's installation\nexit 101\n" > "$policy"
  chmod +x "$policy"
}

install_missing() {
  mkdir -p "$(dirname "$log")"
  exec 8> /run/lock/weir-install.lock; flock 8 # two clones would trip over each other's policy
  echo "installing ${debian[*]}" >&2
  forbid_starting
  apt-get update -q > "$log" 2>&1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 \
    "${debian[@]}" >> "$log" 2>&1 8>&- || { tail -n 5 "$log" >&2; echo "installing failed; see $log" >&2; exit 1; }
}

main() {
  if [ "$(uname -s)" != Linux ]; then echo "the services and tests run on Linux only" >&2; exit 1; fi
  look "$@"
  if [[ " $* " = *" build "* ]] && ! has cargo > /dev/null; then
    missing=("Rust (https://rustup.rs)" "${missing[@]}"); tell; exit 1
  fi
  if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
  if [ "$(id -u)" != 0 ] || ! has apt-get > /dev/null; then tell; exit 1; fi
  install_missing
  look "$@"
  if [ ${#missing[@]} -gt 0 ]; then tell; exit 1; fi
}

main "$@"
