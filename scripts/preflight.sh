#!/usr/bin/env bash
# Says in one message what the build needs and this machine lacks; on Debian as root installs it.
set -euo pipefail
missing=()
command -v cargo > /dev/null || { echo "preflight: cargo is missing; install Rust 1.94 or newer from https://rustup.rs" >&2; exit 1; }
command -v cc > /dev/null || missing+=(gcc)
command -v c++ > /dev/null || missing+=(g++)
command -v pkg-config > /dev/null || missing+=(pkg-config)
[ -e /usr/include/openssl/ssl.h ] || pkg-config --exists openssl 2> /dev/null || missing+=(libssl-dev)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "preflight: installing ${missing[*]}" >&2
  apt-get update -q > /dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" > /dev/null
else
  echo "preflight: missing: ${missing[*]} (Debian's names). librdkafka and zstd are built from source and need them." >&2
  exit 1
fi
