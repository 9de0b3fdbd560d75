# Redis, in memory only: what it holds ends with its process, as the promises of weir allow. Sourced by services.sh.
# shellcheck shell=bash disable=SC2154

data_redis() { echo "$dir/redis"; }

start_redis() {
  mkdir -p "$dir/redis"
  spawn redis redis-server --bind 127.0.0.1 --port "$(port_of redis)" --dir "$dir/redis" --save "" --appendonly no \
    --daemonize no
}

answers_redis() { [ "$(redis-cli -h 127.0.0.1 -p "$(port_of redis)" ping)" = PONG ]; }
