# MariaDB with its distribution's defaults, but for more connections. Sourced by services.sh.
# shellcheck shell=bash disable=SC2154

data_mariadb() { echo "$dir/mariadb"; }

mariadb_bin() { # the name of a program, which some distributions keep out of the path
  PATH=$PATH:/usr/sbin:/usr/libexec command -v "$1"
}

start_mariadb() {
  local data=$dir/mariadb
  if [ ! -d "$data/mysql" ]; then make_mariadb; fi
  # No Unix socket in a shared place: its path would be too long in some clones.
  spawn mariadb "$(mariadb_bin mariadbd)" --no-defaults --user="$(id -un)" --datadir="$data" --bind-address=127.0.0.1 \
    --port="$(port_of mariadb)" --socket="$(mariadb_socket)" --pid-file="$data/server.pid" --max-connections=200
}

mariadb_socket() { echo "/tmp/weir-mariadb-$(port_of mariadb).sock"; }

# Made beside its place and moved: an interrupted one is never started.
make_mariadb() {
  rm -rf "$data" "$data.new"
  mkdir -m 700 "$data.new"
  {
    mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$data.new" --skip-test-db \
      --auth-root-authentication-method=normal
    "$(mariadb_bin mariadbd)" --no-defaults --user="$(id -un)" --datadir="$data.new" --bootstrap << SQL
CREATE DATABASE weir CHARACTER SET utf8mb4;
FLUSH PRIVILEGES;
DROP USER IF EXISTS ''@'localhost', ''@'$(hostname)';
CREATE USER weir@'%' IDENTIFIED BY 'weir';
GRANT ALL PRIVILEGES ON *.* TO weir@'%' WITH GRANT OPTION;
ALTER USER root@localhost IDENTIFIED BY 'weir';
SQL
  } >> "$dir/mariadb.log" 2>&1 9>&- || fail "making MariaDB's data failed; see $dir/mariadb.log"
  mv "$data.new" "$data"
}

answers_mariadb() {
  MYSQL_PWD=weir mariadb --no-defaults --protocol=tcp -h 127.0.0.1 -P "$(port_of mariadb)" -u weir -BNe 'SELECT 1' weir
}
