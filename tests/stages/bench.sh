#!/usr/bin/env bash
# Ratios, never a test:  tests/stages/bench.sh     (BENCH_SECONDS=10, BENCH_CONNECTIONS="64 1000")
#
# First the pure parts by criterion; then HTTP, one after the other in one run: a bare hyper server that answers a constant, the
# service in each mode and profile with its whole stack on (token, rate limit, metrics, tracing), and webdis INCR on the same Redis.
# Strict on PostgreSQL is compared with pgbench: one row, UPDATE .. RETURNING, 64 clients, on the same server.
# Absolute figures on shared machines mean little.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/stages/tools.sh bench
seconds=${BENCH_SECONDS:-10}
read -ra connections <<<"${BENCH_CONNECTIONS:-64 1000}"

cargo build --quiet --release --locked --bin numgen --example bare
[ "${BENCH_PURE:-yes}" = no ] || cargo bench --quiet --locked --bench pure

work=$(mktemp -d)
pids=()
cleanup() {
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$work" "${ledger:-}"
}
trap cleanup EXIT

free_port() {
  local port
  while port=$((12000 + RANDOM % 18000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}
wait_for() {
  local _
  for _ in $(seq 2000); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    sleep 0.005
  done
  echo "nobody listens on $1" >&2
  exit 1
}
resident() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }
now_ms() { date +%s%3N; }

# A Redis of its own, for profile redis and for webdis.
redis_port=$(free_port)
redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work" --save '' --appendonly yes --appendfsync everysec >"$work/redis.log" 2>&1 &
pids+=($!)
webdis_port=$(free_port)
cat >"$work/webdis.json" <<JSON
{"redis_host": "127.0.0.1", "redis_port": $redis_port, "http_host": "127.0.0.1", "http_port": $webdis_port, "threads": 2,
 "pool_size": 10, "daemonize": false, "websockets": false, "verbosity": 1, "logfile": "$work/webdis.log"}
JSON
wait_for "$redis_port"
(cd "$work" && exec webdis webdis.json) >/dev/null 2>&1 &
webdis=$!
pids+=("$webdis")
wait_for "$webdis_port"

# A PostgreSQL of its own, which refuses to run as root.
unprivileged() {
  if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi
}
for folder in /usr/lib/postgresql/*/bin; do PATH=$folder:$PATH; done
postgres_port=$(free_port)
ledger=$(mktemp -d)
[ "$(id -u)" != 0 ] || chown 65534:65534 "$ledger"
(cd / && unprivileged initdb --auth=trust --encoding=UTF8 --locale=C --username numgen -D "$ledger/data") >"$work/initdb.log"
(cd / && unprivileged exec postgres -D "$ledger/data" -p "$postgres_port" -k "$ledger" -h 127.0.0.1) >"$work/postgres.log" 2>&1 &
pids+=($!)
wait_for "$postgres_port"
sql() { psql --quiet --no-psqlrc -h 127.0.0.1 -p "$postgres_port" -U numgen "$@"; }
until sql -d postgres -c 'SELECT 1' >/dev/null 2>&1; do sleep 0.05; done
for database in row optimistic pgbench; do sql -d postgres -c "CREATE DATABASE $database"; done
sql -d pgbench -c 'CREATE TABLE counter (id int PRIMARY KEY, value bigint); INSERT INTO counter VALUES (1, 0)'
echo 'UPDATE counter SET value = value + 1 WHERE id = 1 RETURNING value;' >"$work/update.sql"

bare_port=$(free_port)
target/release/examples/bare "127.0.0.1:$bare_port" >"$work/bare.log" 2>&1 &
bare=$!
pids+=("$bare")
wait_for "$bare_port"

port=$(free_port)
admin=$(free_port)
# One secret for both, so that one token serves both.
NUMGEN_JWT_SECRET=$(head -c 32 /dev/urandom | base64 -w0)
export NUMGEN_JWT_SECRET
export NUMGEN_DATA_DIR="$work/data" NUMGEN_LISTEN="127.0.0.1:$port" NUMGEN_ADMIN_LISTEN="127.0.0.1:$admin" NUMGEN_LOG_FORMAT=json
numgen=$PWD/target/release/numgen
cd "$work"
began=$(now_ms)
"$numgen" serve >"$work/numgen.log" 2>&1 &
server=$!
pids+=("$server")
wait_for "$admin"
echo "ready after start: $(($(now_ms) - began)) ms; resident when idle: $(resident $server) MiB"
token=$("$numgen" token --scope admin --ttl 2h)
url=http://127.0.0.1:$port

shared_port=$(free_port)
shared_admin=$(free_port)
NUMGEN_REDIS_URL="redis://127.0.0.1:$redis_port" NUMGEN_DATA_DIR="$work/shared" NUMGEN_LISTEN="127.0.0.1:$shared_port" \
  NUMGEN_ADMIN_LISTEN="127.0.0.1:$shared_admin" "$numgen" serve >"$work/shared.log" 2>&1 &
shared=$!
pids+=("$shared")
shared_url=http://127.0.0.1:$shared_port
wait_for "$shared_admin"

# Two services on PostgreSQL, one for each way to lock.
declare -A strict=() strict_url=() strict_port=()
for locking in row optimistic; do
  strict_port[$locking]=$(free_port)
  own_admin=$(free_port)
  NUMGEN_DATABASE_URL="postgres://numgen@127.0.0.1:$postgres_port/$locking" NUMGEN_STRICT_LOCKING=$locking \
    NUMGEN_DATA_DIR="$work/$locking" NUMGEN_LISTEN="127.0.0.1:${strict_port[$locking]}" NUMGEN_ADMIN_LISTEN="127.0.0.1:$own_admin" \
    "$numgen" serve >"$work/$locking.log" 2>&1 &
  strict[$locking]=$!
  pids+=($!)
  strict_url[$locking]=http://127.0.0.1:${strict_port[$locking]}
  wait_for "$own_admin"
done

# A rule by way of bash alone: what it prints matters only when it fails.
register() { # port, prefix key, rule
  local body=$3
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf 'PUT /prefix-configs/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
    "$2" "$token" ${#body} "$body" >&3
  grep -q ' 200 ' <<<"$(cat <&3)" || { echo "$2 was refused" >&2; exit 1; }
}
register "$port" SNOW '{"format":"EVT-{SEQ:19}"}'
register "$port" COUNT '{"format":"CNT-{SEQ:9}"}'
register "$port" STRICT '{"format":"INV-{SEQ:9}","mode":"strict"}'
# An empty Redis settles for 5 s before it gives out anything.
sleep 6
register "$shared_port" SNOW '{"format":"EVT-{SEQ:19}"}'
register "$shared_port" COUNT '{"format":"CNT-{SEQ:9}"}'
for locking in row optimistic; do register "${strict_port[$locking]}" STRICT '{"format":"INV-{SEQ:9}","mode":"strict"}'; done
register "${strict_port[row]}" COUNT '{"format":"CNT-{SEQ:9}"}'

declare -A base=()
measure() { # name, connections, process, URL; leaves the requests/s in `rate`
  local out
  out=$(wrk -t2 -c"$2" -d"${seconds}s" --latency -H "Authorization: Bearer $token" "$4")
  rate=$(awk '/^Requests\/sec/ { print $2 }' <<<"$out")
  [ "$1" = bare ] && base[$2]=$rate
  printf '%-24s %6s %12.0f %10s %10s %8s %8.2f%s\n' "$1" "$2" "$rate" \
    "$(awk '$1 == "50%" { print $2 }' <<<"$out")" "$(awk '$1 == "99%" { print $2 }' <<<"$out")" "$(resident "$3")" \
    "$(awk -v a="$rate" -v b="${base[$2]}" 'BEGIN { print a / b }')" \
    "$(awk '/Non-2xx/ { printf "  %s refused!", $NF } /Socket errors/ { printf "  %s", $0 }' <<<"$out")"
}
printf '\n%-24s %6s %12s %10s %10s %8s %8s\n' what conns requests/s p50 p99 MiB ratio
for count in "${connections[@]}"; do
  measure bare "$count" "$bare" "http://127.0.0.1:$bare_port/"
  measure snowflake "$count" "$server" "$url/numbers/SNOW"
  measure continuous "$count" "$server" "$url/numbers/COUNT"
  measure strict "$count" "$server" "$url/numbers/STRICT"
  measure 'snowflake, Redis' "$count" "$shared" "$shared_url/numbers/SNOW"
  measure 'continuous, Redis' "$count" "$shared" "$shared_url/numbers/COUNT"
  measure 'webdis INCR' "$count" "$webdis" "http://127.0.0.1:$webdis_port/INCR/bench"
  measure 'strict, PostgreSQL' "$count" "${strict[row]}" "${strict_url[row]}/numbers/STRICT"
  [ "$count" != 64 ] || strict_rate=$rate
  measure 'strict, optimistic' "$count" "${strict[optimistic]}" "${strict_url[optimistic]}/numbers/STRICT"
  measure 'continuous, PostgreSQL' "$count" "${strict[row]}" "${strict_url[row]}/numbers/COUNT"
done
batch=$(wrk -t2 -c8 -d"${seconds}s" -H "Authorization: Bearer $token" "$url/numbers/SNOW?count=1000" | awk '/^Requests\/sec/ { print $2 }')
awk -v rate="$batch" 'BEGIN { printf "\nsnowflake, count=1000: %.0f numbers/s\n", rate * 1000 }'

updates=$(pgbench -n -M prepared -c 64 -j 2 -T "$seconds" -f "$work/update.sql" -h 127.0.0.1 -p "$postgres_port" -U numgen pgbench 2>&1 | awk '/^tps/ { print $3 }')
printf 'pgbench, one row, 64 clients: %.0f updates/s' "$updates"
[ -z "${strict_rate:-}" ] || awk -v a="$strict_rate" -v b="$updates" 'BEGIN { printf "; strict on PostgreSQL, 64 connections: %.1f times that", a / b }'
echo

# 1,000 strict counters in turn.
for i in $(seq 1000); do register "${strict_port[row]}" "S$i" '{"format":"S'"$i"'-{SEQ:9}","mode":"strict"}'; done
echo 'request = function() return wrk.format("GET", "/numbers/S" .. math.random(1000)) end' >"$work/spread.lua"
spread() { wrk -t2 -c64 -d"${seconds}s" -s "$work/spread.lua" -H "Authorization: Bearer $token" "${strict_url[row]}" | awk '/^Requests\/sec/ { print $2 } /Non-2xx/ { print "refused!" }'; }
spread >/dev/null
echo "1,000 strict counters on PostgreSQL, 64 connections: $(spread) requests/s"
