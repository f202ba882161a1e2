# Servers for the stages that need real ones, each on a free port, in the folder $work.   (sourced)
#
# Whoever sources this sets `work` to an empty folder and `numgen` to the binary, by its whole path, and calls `stop_all` at the
# end. What is stopped is exactly what was started here.
. tests/stages/ports.sh

# The children of this shell that are still there: a process ID that has been waited for may be another's by now.
stop_all() {
  local running
  running=$(jobs -p)
  [ -z "$running" ] || kill $running 2>/dev/null
  wait
}

wait_for() { # what, seconds, command ...
  local what=$1 tries=$(($2 * 20))
  shift 2
  for _ in $(seq "$tries"); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.05
  done
  echo "$what is not there"
  return 1
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start_redis() { # sets redis_port once, redis_pid each time
  redis_port=${redis_port:-$(free_port)}
  mkdir -p "$work/redis"
  redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" --save '' --appendonly yes --appendfsync everysec \
    >>"$work/redis.log" 2>&1 &
  redis_pid=$!
  wait_for "Redis on $redis_port" 10 listens "$redis_port"
}

start_postgres() { # sets postgres_port
  local folder server_user=()
  for folder in /usr/lib/postgresql/*/bin; do [ -x "$folder/postgres" ] && PATH=$folder:$PATH; done
  postgres_port=$(free_port)
  mkdir -p "$work/postgres"
  # PostgreSQL refuses to run as root.
  if [ "$(id -u)" = 0 ]; then
    chmod 755 "$work"
    chown 65534:65534 "$work/postgres"
    server_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  fi
  (cd / && "${server_user[@]}" initdb --auth=trust --encoding=UTF8 --locale=C --username=numgen -D "$work/postgres/data") \
    >"$work/initdb.log" 2>&1 || { tail -3 "$work/initdb.log"; return 1; }
  (cd / && exec "${server_user[@]}" postgres -D "$work/postgres/data" -p "$postgres_port" -c listen_addresses=127.0.0.1 \
    -c "unix_socket_directories=$work/postgres" -c max_wal_size=4GB) >"$work/postgres.log" 2>&1 &
  wait_for "PostgreSQL on $postgres_port" 20 \
    psql -X -q -h 127.0.0.1 -p "$postgres_port" -U numgen -d postgres -c 'CREATE DATABASE numgen'
}

# Starts a node and waits until it is ready. The process sees these settings and nothing else: no numgen.toml of a developer either.
#   start_numgen NAME SETTING=VALUE ...      sets node_port, node_pid; adds to `base_urls`
start_numgen() {
  local name=$1 admin
  shift
  node_port=$(free_port)
  admin=$(free_port)
  [ -e "$work/secret" ] || head -c 32 /dev/urandom | base64 -w0 >"$work/secret"
  env -i -C "$work" "PATH=$PATH" "HOME=$work" "NUMGEN_NODE_NAME=$name" "NUMGEN_DATA_DIR=$work/$name" "NUMGEN_JWT_SECRET_FILE=$work/secret" \
    "NUMGEN_LISTEN=127.0.0.1:$node_port" "NUMGEN_ADMIN_LISTEN=127.0.0.1:$admin" NUMGEN_LOG_FORMAT=json "$@" \
    "$numgen" serve >"$work/$name.log" 2>&1 &
  node_pid=$!
  base_urls=${base_urls:+$base_urls,}http://127.0.0.1:$node_port
  # An empty store settles for 5 s before it gives out worker IDs.
  wait_for "numgen $name" 30 env -i -C "$work" "$numgen" health --admin-listen "127.0.0.1:$admin" || { tail -5 "$work/$name.log"; return 1; }
}

admin_token() {
  env -i -C "$work" "PATH=$PATH" "NUMGEN_JWT_SECRET_FILE=$work/secret" "NUMGEN_DATA_DIR=$work/token" "$numgen" token --scope admin --ttl 48h
}
