#!/usr/bin/env bash
# Real services for development and tests: in .services/ of this clone, on free ports of 127.0.0.1.
#   services.sh up | down | clean | status | start NAME | stop NAME | kill NAME | topic TOPIC | deny TOPIC | allow TOPIC
# NAME: kafka postgres mariadb redis. Each service's file gives start_NAME, answers_NAME and data_NAME.
# WEIR_SERVICES_DIR names another folder for a second set of them beside the first.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${WEIR_SERVICES_DIR:-$root/.services}
kafka_libs=$root/.services/kafka-libs
names=(kafka postgres mariadb redis)
ready_seconds=60
stop_seconds=30

say() { echo "services: $*" >&2; }
fail() { say "$*"; exit 1; }

for name in "${names[@]}"; do
  # shellcheck source=/dev/null
  . "$root/scripts/services/$name.sh"
done

# ---- processes ---------------------------------------------------------------------------------------------------

# A pid file may outlive its process, and the pid go to a stranger: it counts only while the process works in
# the service's folder or names it.
running() {
  local pid data
  pid=$(cat "$dir/$1.pid" 2> /dev/null) || return 1
  data=$("data_$1")
  [ "$(readlink "/proc/$pid/cwd" 2> /dev/null)" = "$data" ] || grep -qaF -e "$data" "/proc/$pid/cmdline" 2> /dev/null
}

# spawn NAME COMMAND…: in the service's folder, outliving this script, holding neither its output nor its lock.
spawn() {
  local name=$1; shift
  pushd "$("data_$name")" > /dev/null
  setsid nohup "$@" >> "$dir/$name.log" 2>&1 < /dev/null 9>&- &
  echo $! > "$dir/$name.pid"
  popd > /dev/null
}

await() {
  local name=$1 deadline=$((SECONDS + ready_seconds))
  until "answers_$name" > /dev/null 2>&1; do
    running "$name" || fail "$name ended while starting on port $(port_of "$name"); see $dir/$name.log"
    [ $SECONDS -lt $deadline ] || fail "$name is not ready after $ready_seconds s; see $dir/$name.log"
    sleep 0.1
  done
}

# signal NAME SIGNAL, and wait until it has ended.
end() {
  local name=$1 signal=$2 deadline=$((SECONDS + stop_seconds)) pid
  if running "$name"; then
    pid=$(cat "$dir/$name.pid")
    kill "-$signal" "$pid"
    while running "$name"; do
      if [ $SECONDS -ge $deadline ]; then
        say "$name does not stop; killing it"
        kill -KILL "$pid" 2> /dev/null || true
        deadline=$((SECONDS + stop_seconds))
      fi
      sleep 0.1
    done
  fi
  rm -f "$dir/$name.pid"
}

# ---- ports and addresses -----------------------------------------------------------------------------------------

port_of() { sed -n "s/^$1=//p" "$dir/ports"; }

# Below the range from which outgoing connections get theirs: a client that keeps trying to reach a stopped
# service would one day be given the service's own port, connect to itself, and keep the service from coming back.
# What has a port keeps it: the file may be of a release with fewer services.
choose_ports() {
  touch "$dir/ports"
  cp "$dir/ports" "$dir/ports.new"
  python3 - "$dir/ports" >> "$dir/ports.new" << 'PY'
import random, socket, sys
known = {line.split("=")[0] for line in open(sys.argv[1])}
low = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
candidates = random.sample(range(10240, low), 1000) if low > 12000 else [0] * 1000
held = []
for name in ["kafka", "controller", "postgres", "mariadb", "redis"]:
    while name not in known:
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", candidates.pop()))
        except OSError:
            continue
        held.append(s)
        print(f"{name}={s.getsockname()[1]}")
        break
PY
  mv "$dir/ports.new" "$dir/ports"
}

write_env() {
  cat > "$dir/env.new" << ENV
KAFKA_BROKERS=127.0.0.1:$(port_of kafka)
POSTGRES_URL=postgres://weir:weir@127.0.0.1:$(port_of postgres)/weir
MYSQL_URL=mysql://weir:weir@127.0.0.1:$(port_of mariadb)/weir
REDIS_URL=redis://127.0.0.1:$(port_of redis)
ENV
  # Tests stop and start services by this script: those of the same set.
  if [ -n "${WEIR_SERVICES_DIR:-}" ]; then echo "WEIR_SERVICES_DIR=$WEIR_SERVICES_DIR" >> "$dir/env.new"; fi
  mv "$dir/env.new" "$dir/env"
}

# ---- commands ----------------------------------------------------------------------------------------------------

up() { # the named services
  local name started=0
  for name in "$@"; do
    if running "$name"; then continue; fi
    if [ $started = 0 ]; then "$root/scripts/require.sh" services; choose_ports; started=1; fi
    "start_$name"
  done
  for name in "$@"; do await "$name"; done
  write_env
  say "$* ready; addresses in ${WEIR_SERVICES_DIR:-.services}/env"
}

down() {
  local name
  for name in "${names[@]}"; do end "$name" "$(stop_signal "$name")"; done
}

# INT is PostgreSQL's fast shutdown: TERM would wait for its clients.
stop_signal() { if [ "$1" = postgres ]; then echo INT; else echo TERM; fi; }

# Kafka's own tool, so that a first run needs nothing else; 8 partitions, as the documentation's examples have it.
make_topic() {
  running kafka || fail "Kafka does not run; start it by: make up"
  java -Xmx256m -cp "$kafka_libs/*" org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$(port_of kafka)" \
    --create --if-not-exists --topic "$1" --partitions 8 2>> "$dir/kafka.log"
}

known() {
  case " ${names[*]} " in *" ${1:-?} "*) ;; *) fail "there is no service '${1:-}'; known: ${names[*]}" ;; esac
}

status() {
  local name
  for name in "${names[@]}"; do if running "$name"; then echo "$name: running"; else echo "$name: stopped"; fi; done
}

mkdir -p "$dir"
exec 9> "$dir/lock"; flock 9
case "${1:-}" in
  up) up "${names[@]}" ;;
  down) down ;;
  clean) down; rm -rf "$(data_postgres)" "$dir" ;;
  start) known "${2:-}"; up "$2" ;;
  stop) known "${2:-}"; end "$2" "$(stop_signal "$2")" ;;
  kill) known "${2:-}"; end "$2" KILL ;;
  status) status ;;
  topic) make_topic "${2:?a topic}" ;;
  deny|allow) access_kafka "$1" "${2:?a topic}" ;;
  *) fail "usage: services.sh up | down | clean | status | start NAME | stop NAME | kill NAME | topic NAME | deny NAME | allow NAME" ;;
esac
