#!/usr/bin/env bash
# Real services for development and tests, in .services/ of this clone, on free ports of 127.0.0.1.
#   services.sh up | down | clean | start NAME | stop NAME | kill NAME | status      NAME: kafka postgres redis
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/.services
names=(kafka postgres redis)
ready_seconds=60

say() { echo "services: $*" >&2; }
fail() { say "$*"; exit 1; }

# ---- what must be installed -------------------------------------------------------------------------------------

pg_bin() {
  local bin
  for bin in /usr/lib/postgresql/*/bin; do [ -x "$bin/initdb" ] && { echo "$bin"; return; }; done
  command -v initdb > /dev/null && dirname "$(readlink -f "$(command -v initdb)")"
}

missing_packages() {
  command -v java > /dev/null || echo openjdk-17-jre-headless
  command -v mvn > /dev/null || echo maven
  [ -n "$(pg_bin)" ] || echo postgresql
  command -v redis-server > /dev/null || echo redis-server
  command -v python3 > /dev/null || echo python3
}

# Debian starts what it installs; a policy that forbids it keeps the rest of the machine as it was.
install_packages() {
  local policy=/usr/sbin/policy-rc.d kept=
  if [ -e "$policy" ]; then kept=$policy.weir; mv "$policy" "$kept"; fi
  printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod +x "$policy"
  local status=0
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } \
    > "$dir/install.log" 2>&1 || status=$?
  rm -f "$policy"; if [ -n "$kept" ]; then mv "$kept" "$policy"; fi
  [ "$status" = 0 ] || fail "installing $* failed; see $dir/install.log"
}

require_packages() {
  local missing; missing=$(missing_packages | tr '\n' ' ')
  if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
      say "installing $missing"
      # shellcheck disable=SC2086
      install_packages $missing
    else
      fail "missing: $missing(Debian's names). Install them, for example: sudo apt-get install $missing"
    fi
  fi
}

# ---- processes ---------------------------------------------------------------------------------------------------

# A pid counts only while its process works in this clone's folder for the service, or names it in its command line.
running() {
  local pid data; pid=$(cat "$dir/$1.pid" 2> /dev/null) || return 1
  data=$(data_of "$1")
  [ "$(readlink "/proc/$pid/cwd" 2> /dev/null)" = "$data" ] || grep -qaF -e "$data" "/proc/$pid/cmdline" 2> /dev/null
}

spawn() {
  local name=$1; shift
  setsid nohup "$@" >> "$dir/$name.log" 2>&1 < /dev/null 9>&- &
  echo $! > "$dir/$name.pid"
}

await() {
  local name=$1 deadline=$((SECONDS + ready_seconds))
  until "answers_$name" > /dev/null 2>&1; do
    running "$name" || fail "$name ended while starting; see $dir/$name.log"
    [ $SECONDS -lt $deadline ] || fail "$name is not ready after $ready_seconds s; see $dir/$name.log"
    sleep 0.2
  done
}

port_of() { sed -n "s/^$1=//p" "$dir/ports"; }

choose_ports() {
  [ -s "$dir/ports" ] && return
  python3 - > "$dir/ports.new" << 'PY'
import socket
sockets = [socket.socket() for _ in range(4)]
for name, s in zip(["kafka", "controller", "postgres", "redis"], sockets):
    s.bind(("127.0.0.1", 0))
    print(f"{name}={s.getsockname()[1]}")
PY
  mv "$dir/ports.new" "$dir/ports"
}

data_of() {
  case $1 in
    # PostgreSQL refuses to run as root, and its user may not be able to enter the clone.
    postgres) if [ "$(id -u)" = 0 ]; then echo "/var/lib/weir-services/$(echo -n "$root" | md5sum | cut -c1-12)"; else echo "$dir/postgres-data"; fi ;;
    *) echo "$dir/$1" ;;
  esac
}

# ---- Kafka -------------------------------------------------------------------------------------------------------

kafka_java() { java -Xmx256m -cp "$dir/kafka-libs/*" "$@"; }

start_kafka() {
  mkdir -p "$dir/kafka"
  if [ ! -e "$dir/kafka-libs/.complete" ]; then
    say "fetching Kafka's packages"
    mvn -q -B -f "$root/scripts/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$dir/kafka-libs" \
      > "$dir/maven.log" 2>&1 || fail "fetching Kafka's packages failed; see $dir/maven.log"
    touch "$dir/kafka-libs/.complete"
  fi
  local port controller; port=$(port_of kafka); controller=$(port_of controller)
  cat > "$dir/kafka/server.properties" << PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$dir/kafka/data
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
PROPERTIES
  cat > "$dir/kafka/log4j2.properties" << 'PROPERTIES'
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c: %m%n
PROPERTIES
  if [ ! -e "$dir/kafka/data/meta.properties" ]; then
    kafka_java -Dlog4j2.configurationFile="$dir/kafka/log4j2.properties" kafka.tools.StorageTool format --standalone \
      -t "$(python3 -c 'import base64,uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))')" \
      -c "$dir/kafka/server.properties" >> "$dir/kafka.log" 2>&1 || fail "formatting Kafka's log failed; see $dir/kafka.log"
  fi
  spawn kafka java -Xms512m -Xmx512m -Dlog4j2.configurationFile="$dir/kafka/log4j2.properties" \
    -cp "$dir/kafka-libs/*" kafka.Kafka "$dir/kafka/server.properties"
}

# An ApiVersions request (key 18, version 0): answered only by a broker that is up.
answers_kafka() {
  python3 - "$(port_of kafka)" << 'PY'
import socket, struct, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1) as s:
    s.settimeout(2)
    body = struct.pack(">hhih", 18, 0, 1, 4) + b"weir"
    s.sendall(struct.pack(">i", len(body)) + body)
    size = struct.unpack(">i", s.recv(4))[0]
    sys.exit(0 if size > 10 else 1)
PY
}

# ---- PostgreSQL --------------------------------------------------------------------------------------------------

as_postgres() {
  if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid postgres --regid postgres --init-groups -- "$@"); else "$@"; fi
}

start_postgres() {
  local bin data; bin=$(pg_bin); data=$(data_of postgres)
  if [ ! -e "$data/PG_VERSION" ]; then
    mkdir -p "$data"; chmod 700 "$data"
    if [ "$(id -u)" = 0 ]; then chmod 755 "$(dirname "$data")"; chown postgres: "$data"; fi
    as_postgres "$bin/initdb" -D "$data" -U weir -A trust -E UTF8 --locale=C.UTF-8 >> "$dir/postgres.log" 2>&1 \
      || fail "initdb failed; see $dir/postgres.log"
  fi
  if [ "$(id -u)" = 0 ]; then
    spawn postgres setpriv --reuid postgres --regid postgres --init-groups -- "$bin/postgres" -D "$data" \
      -h 127.0.0.1 -p "$(port_of postgres)" -k "$data" -c max_connections=200
  else
    spawn postgres "$bin/postgres" -D "$data" -h 127.0.0.1 -p "$(port_of postgres)" -k "$data" -c max_connections=200
  fi
}

answers_postgres() {
  local bin psql; bin=$(pg_bin); psql=("$bin/psql" -qAt -h 127.0.0.1 -p "$(port_of postgres)" -U weir)
  "${psql[@]}" -d weir -c 'SELECT 1' && return
  "${psql[@]}" -d postgres -c "CREATE DATABASE weir"
}

# ---- Redis -------------------------------------------------------------------------------------------------------

start_redis() {
  mkdir -p "$dir/redis"
  spawn redis redis-server --bind 127.0.0.1 --port "$(port_of redis)" --dir "$dir/redis" --save "" --appendonly no \
    --daemonize no
}

answers_redis() { [ "$(redis-cli -h 127.0.0.1 -p "$(port_of redis)" ping)" = PONG ]; }

# ---- commands ----------------------------------------------------------------------------------------------------

known() { case " ${names[*]} " in *" ${1:-} "*) ;; *) fail "there is no service '${1:-}'; known: ${names[*]}" ;; esac; }

launch() { running "$1" || "start_$1"; }

start() { known "$1"; launch "$1"; await "$1"; }

# The signals end a service cleanly: for PostgreSQL, INT is its fast shutdown.
stop() {
  local name=$1 signal=TERM pid; known "$name"
  running "$name" || { rm -f "$dir/$name.pid"; return 0; }
  pid=$(cat "$dir/$name.pid"); [ "$name" = postgres ] && signal=INT
  [ "${2:-}" = kill ] && signal=KILL
  kill "-$signal" "$pid"
  local deadline=$((SECONDS + 30))
  while [ -d "/proc/$pid" ]; do
    if [ $SECONDS -ge $deadline ]; then say "$name does not stop; killing it"; kill -KILL "$pid" 2> /dev/null || true; deadline=$((SECONDS + 30)); fi
    sleep 0.1
  done
  rm -f "$dir/$name.pid"
}

write_env() {
  cat > "$dir/env.new" << ENV
KAFKA_BROKERS=127.0.0.1:$(port_of kafka)
POSTGRES_URL=postgres://weir:weir@127.0.0.1:$(port_of postgres)/weir
REDIS_URL=redis://127.0.0.1:$(port_of redis)
ENV
  mv "$dir/env.new" "$dir/env"
}

up() {
  require_packages
  choose_ports
  local name
  for name in "${names[@]}"; do launch "$name"; done
  for name in "${names[@]}"; do await "$name"; done
  write_env
  say "ready; addresses in .services/env"
}

mkdir -p "$dir"
case "${1:-}" in
  up) exec 9> "$dir/lock"; flock 9; up ;;
  down) for name in "${names[@]}"; do stop "$name"; done ;;
  clean) for name in "${names[@]}"; do stop "$name"; done; rm -rf "$(data_of postgres)" "$dir" ;;
  start) choose_ports; start "${2:-}" ;;
  stop) stop "${2:-}" ;;
  kill) stop "${2:-}" kill ;;
  status) for name in "${names[@]}"; do if running "$name"; then echo "$name: running"; else echo "$name: stopped"; fi; done ;;
  *) fail "usage: services.sh up | down | clean | start NAME | stop NAME | kill NAME | status" ;;
esac
