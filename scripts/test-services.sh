#!/usr/bin/env bash
# Tests services.sh from the outside, in two clones in a temporary folder; the clone it is called from is not touched.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
a=$work/a b=$work/b
failures=0

finish() {
  for clone in "$a" "$b"; do make -s -C "$clone" clean-services 2> /dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT

check() { # what, command…
  if "${@:2}"; then echo "ok   $1"; else echo "FAIL $1"; failures=$((failures + 1)); fi
}

clone() {
  mkdir -p "$1"
  cp -r "$source/Makefile" "$source/scripts" "$1/"
}

in_clone() { make -s -C "$1" "${@:2}" 2> /dev/null; }
pids() { cat "$1"/.services/{kafka,postgres,mariadb,redis}.pid; }
address() { sed -n "s/^$2=//p" "$1/.services/env"; }
same() { [ "$1" = "$2" ]; }
differ() { [ "$1" != "$2" ]; }
gone() { local pid; for pid in $1; do if [ -e "/proc/$pid/cwd" ]; then return 1; fi; done; }
ms() { date +%s%3N; }
at_most() { echo "     took $1 ms"; [ "$1" -le "$2" ]; }

bin_of_postgres() {
  local all; all=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  if [ -x "$all/psql" ]; then echo "$all"; else dirname "$(command -v psql)"; fi
}
sql() { "$(bin_of_postgres)/psql" -qAt "$(address "$1" POSTGRES_URL)" -c "$2"; }
refuses_password() { ! PGCONNECT_TIMEOUT=5 sql_with "$1" wrong 2> /dev/null; }
sql_with() { "$(bin_of_postgres)/psql" -qAt "$(address "$1" POSTGRES_URL | sed "s/weir:weir/weir:$2/")" -c 'SELECT 1'; }
topic() { java -cp "$1/.services/kafka-libs/*" org.apache.kafka.tools.TopicCommand --bootstrap-server "$(address "$1" KAFKA_BROKERS)" "${@:2}" 2> /dev/null; }
redis() { redis-cli -u "$(address "$1" REDIS_URL)" "${@:2}"; }
only_local() { # every listening socket of these processes is on 127.0.0.1
  local pid sockets
  for pid in $1; do
    sockets=$(ss -Hltnp 2> /dev/null | grep "pid=$pid,") || return 1
    if echo "$sockets" | awk '{print $4}' | grep -vqE '^(\[::ffff:)?127\.0\.0\.1\]?:'; then echo "$sockets"; return 1; fi
  done
}

starts_side_by_side() {
  local started; started=$(ms)
  in_clone "$a" up & local first=$!
  in_clone "$b" up & local second=$!
  check "the first clone comes up" wait "$first"
  check "a second clone comes up at the same time" wait "$second"
  echo "     both took $(($(ms) - started)) ms"
  check "they have different addresses" differ "$(cat "$a/.services/env")" "$(cat "$b/.services/env")"
  check "nothing listens beyond 127.0.0.1" only_local "$(pids "$a")"
  check "a wrong password is refused" refuses_password "$a"
}

comes_up_twice() {
  local before started; before=$(pids "$a") started=$(ms)
  in_clone "$a" up
  check "a second up is quick" at_most $(($(ms) - started)) 1500
  check "and starts nothing" same "$before" "$(pids "$a")"
  local holder; holder=$(bash -c "make -s -C '$a' kill-redis up 2>&1 | tail -n 1")
  check "up does not hold its caller's output" same "$holder" "services: kafka postgres mariadb redis ready; addresses in .services/env"
}

keeps_data() { # by the given way of ending a service
  local way=$1 env; env=$(cat "$a/.services/env")
  sql "$a" "CREATE TABLE IF NOT EXISTS kept (way text); INSERT INTO kept VALUES ('$way')" 2> /dev/null
  topic "$a" --create --topic "kept-$way" --partitions 2 > /dev/null
  redis "$a" set kept "$way" > /dev/null
  local name before
  for name in kafka postgres mariadb redis; do
    before=$(cat "$a/.services/$name.pid")
    if [ "$way" = crash ]; then kill -9 "$before"; else in_clone "$a" "$way-$name"; check "$name ends by $way" gone "$before"; fi
    if [ "$way" = crash ]; then in_clone "$a" up; else in_clone "$a" "start-$name"; fi
    check "$name is new after $way" differ "$before" "$(cat "$a/.services/$name.pid")"
  done
  check "the addresses are the same after $way" same "$env" "$(cat "$a/.services/env")"
  check "PostgreSQL's rows are kept after $way" same "$(sql "$a" "SELECT count(*) FROM kept WHERE way = '$way'")" 1
  check "Kafka's topics are kept after $way" test "$(topic "$a" --list | grep -c "^kept-$way$")" = 1
  check "Redis is empty after $way" same "$(redis "$a" dbsize)" 0
}

survives_a_busy_crash() {
  "$(bin_of_postgres)/pgbench" -q -i "$(address "$a" POSTGRES_URL)" > /dev/null 2>&1
  "$(bin_of_postgres)/pgbench" -c 8 -T 10 "$(address "$a" POSTGRES_URL)" > /dev/null 2>&1 & local load=$!
  until [ "$(sql "$a" 'SELECT count(*) FROM pgbench_history')" -gt 100 ]; do :; done
  kill -9 "$(cat "$a/.services/postgres.pid")"
  check "PostgreSQL comes back from a crash under load" in_clone "$a" up
  wait "$load" || true
}

leaves_strangers_alone() {
  sleep 300 & local stranger=$!
  cp "$a/.services/redis.pid" "$work/redis.pid"
  echo "$stranger" > "$a/.services/redis.pid"
  in_clone "$a" stop-redis
  check "a pid that went to a stranger is not signalled" test -e "/proc/$stranger/cwd"
  kill "$stranger"
  cp "$work/redis.pid" "$a/.services/redis.pid"
}

ends() {
  local first second; first=$(pids "$a") second=$(pids "$b")
  in_clone "$a" down
  check "down leaves no process" gone "$first"
  check "and is safe to call again" in_clone "$a" down
  check "the other clone's services run on" same "$(make -s -C "$b" up 2> /dev/null; pids "$b")" "$second"
  in_clone "$a" clean-services
  check "clean-services leaves no folder" test ! -e "$a/.services"
}

clone "$a"; clone "$b"
starts_side_by_side
comes_up_twice
keeps_data stop
keeps_data kill
keeps_data crash
survives_a_busy_crash
leaves_strangers_alone
ends
[ $failures = 0 ] || { echo "$failures failed"; exit 1; }
echo "all passed"
