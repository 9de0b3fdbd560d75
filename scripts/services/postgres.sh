# PostgreSQL with its distribution's defaults, but for more connections. Sourced by services.sh.
# shellcheck shell=bash disable=SC2154

# PostgreSQL refuses to run as root, and its own user may not be able to enter the clone: then its data live elsewhere.
data_postgres() {
  if [ "$(id -u)" = 0 ]; then
    echo "/var/lib/weir-services/$(echo -n "${WEIR_SERVICES_DIR:-$root}" | md5sum | cut -c1-12)"
  else
    echo "$dir/postgres"
  fi
}

# Of several versions the one that made the data, else the newest.
postgres_bin() {
  local made_by all
  made_by=/usr/lib/postgresql/$(cat "$(data_postgres)/PG_VERSION" 2> /dev/null)/bin
  if [ -x "$made_by/postgres" ]; then echo "$made_by"; return; fi
  all=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  if [ -x "$all/postgres" ]; then echo "$all"; else dirname "$(command -v initdb)"; fi
}

# The words that run what follows as a user that PostgreSQL accepts.
postgres_user() {
  if [ "$(id -u)" = 0 ]; then echo "setpriv --reuid postgres --regid postgres --init-groups --"; fi
}

start_postgres() {
  local bin data user
  bin=$(postgres_bin) data=$(data_postgres)
  read -ra user <<< "$(postgres_user)"
  if [ ! -e "$data/PG_VERSION" ]; then make_cluster; fi
  await_orphans "$data"
  # No Unix socket: its path would be too long in some clones.
  spawn postgres "${user[@]}" "$bin/postgres" -D "$data" -h 127.0.0.1 -p "$(port_of postgres)" -k '' -c max_connections=200
}

# Uses start_postgres's bin, data and user. Made beside its place and moved: an interrupted one is never started.
make_cluster() {
  mkdir -p "$(dirname "$data")"
  rm -rf "$data" "$data.new"
  mkdir -m 700 "$data.new"
  if [ "$(id -u)" = 0 ]; then
    id postgres > /dev/null 2>&1 || fail "PostgreSQL does not run as root, and there is no user 'postgres' to run it as"
    chmod 755 "$(dirname "$data")"; chown postgres: "$data.new"
    ln -sfn "$data" "$dir/postgres"
  fi
  # shellcheck disable=SC2016
  (cd / && "${user[@]}" bash -c '"$@" --pwfile=<(echo weir)' initdb "$bin/initdb" -D "$data.new" -U weir \
    -A scram-sha-256 -E UTF8 --locale=C.UTF-8) >> "$dir/postgres.log" 2>&1 9>&- || fail "initdb failed; see $dir/postgres.log"
  mv "$data.new" "$data"
}

# The processes of a killed PostgreSQL end a little after it, and until then a new one refuses to start. It also
# refuses while the old one is a zombie that nobody has reaped, as in a container without an init: with no process
# left that works in the folder, the old lock file means nothing.
await_orphans() {
  local deadline=$((SECONDS + stop_seconds)) process
  while :; do
    for process in /proc/[0-9]*; do
      if [ "$(readlink "$process/cwd" 2> /dev/null)" = "$1" ]; then break; fi
      process=
    done
    if [ -z "$process" ]; then rm -f "$1/postmaster.pid"; return; fi
    [ $SECONDS -lt $deadline ] || fail "process ${process#/proc/} still works in $1"
    sleep 0.1
  done
}

# The role is there from initdb; the database is made when PostgreSQL first answers.
answers_postgres() {
  local psql
  psql=("$(postgres_bin)/psql" -qAt -h 127.0.0.1 -p "$(port_of postgres)" -U weir)
  PGPASSWORD=weir "${psql[@]}" -d weir -c 'SELECT 1' || PGPASSWORD=weir "${psql[@]}" -d postgres -c 'CREATE DATABASE weir'
}
