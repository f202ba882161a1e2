#!/usr/bin/env bash
# Ratios, never a test:  tests/stages/bench.sh     (BENCH_SECONDS=10, BENCH_CONNECTIONS="64 1000")
#
# First the pure parts by criterion; then HTTP, one after the other in one run: a bare hyper server that answers a constant, the
# service in each mode and profile with its whole stack on (token, rate limit, metrics, tracing), and webdis INCR on the same Redis;
# then latency at a pace that drives nobody to the limit.
# Last, strict mode on PostgreSQL against what pgbench gets out of one row of the same server (UPDATE .. RETURNING, 64 clients).
# Absolute figures on shared machines mean little, and ratios where others were given the processors meanwhile: it says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/disturbance.sh
. tests/stages/ports.sh
# The settings of whoever calls are not those of the servers.
unset "${!NUMGEN_@}" "${!OTEL_@}"
tests/stages/tools.sh bench
seconds=${BENCH_SECONDS:-10}
read -ra connections <<<"${BENCH_CONNECTIONS:-64 1000}"

cargo build --quiet --release --locked --bin numgen --example bare
[ "${BENCH_PURE:-yes}" = no ] || cargo bench --quiet --locked --bench pure

work=$(mktemp -d)
pids=()
cleanup() {
  kill "${pids[@]}" ${disturbance_pid:-} 2>/dev/null || true
  wait
  rm -rf "$work" "${pg:-}"
}
trap cleanup EXIT

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

declare -A base=()
measure() { # name, connections, process, URL
  local out rate
  out=$(wrk -t2 -c"$2" -d"${seconds}s" --latency -H "Authorization: Bearer $token" "$4")
  rate=$(awk '/^Requests\/sec/ { print $2 }' <<<"$out")
  [ "$1" = bare ] && base[$2]=$rate
  printf '%-24s %6s %12.0f %10s %10s %8s %8.2f%s\n' "$1" "$2" "$rate" \
    "$(awk '$1 == "50%" { print $2 }' <<<"$out")" "$(awk '$1 == "99%" { print $2 }' <<<"$out")" "$(resident "$3")" \
    "$(awk -v a="$rate" -v b="${base[$2]}" 'BEGIN { print a / b }')" \
    "$(awk '/Non-2xx/ { printf "  %s refused!", $NF } /Socket errors/ { printf "  %s", $0 }' <<<"$out")"
}
disturbance_begin
printf '\n%-24s %6s %12s %10s %10s %8s %8s\n' what conns requests/s p50 p99 MiB ratio
for count in "${connections[@]}"; do
  measure bare "$count" "$bare" "http://127.0.0.1:$bare_port/"
  measure snowflake "$count" "$server" "$url/numbers/SNOW"
  measure continuous "$count" "$server" "$url/numbers/COUNT"
  measure strict "$count" "$server" "$url/numbers/STRICT"
  measure 'snowflake, Redis' "$count" "$shared" "$shared_url/numbers/SNOW"
  measure 'continuous, Redis' "$count" "$shared" "$shared_url/numbers/COUNT"
  measure 'webdis INCR' "$count" "$webdis" "http://127.0.0.1:$webdis_port/INCR/bench"
done
# Latency where nobody is driven to the limit: 500 connections that pause 50 ms on average are 10,000 requests/s.
cat >"$work/steady.lua" <<'LUA'
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end
function init() math.randomseed(seed) end
-- Milliseconds. Equal pauses would march in step.
function delay() return math.random(0, 100) end
function done(summary, latency)
  local failed = summary.errors.status + summary.errors.timeout + summary.errors.read + summary.errors.connect
  print(string.format("steady %.0f %.2f %.2f %.2f %d", summary.requests / summary.duration * 1e6, latency.mean / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, failed))
end
LUA
steady() { # name, URL
  wrk -t2 -c500 -d"${seconds}s" -s "$work/steady.lua" -H "Authorization: Bearer $token" "$2" | awk -v name="$1" \
    '$1 == "steady" { printf "%-24s %6s %12s %10s %10s %10s %8s\n", name, 500, $2, $3 "ms", $4 "ms", $5 "ms", $6 }'
}
printf '\n%-24s %6s %12s %10s %10s %10s %8s\n' 'at a steady pace' conns requests/s average p95 p99 failed
steady bare "http://127.0.0.1:$bare_port/"
steady snowflake "$url/numbers/SNOW"
steady continuous "$url/numbers/COUNT"
steady 'continuous, Redis' "$shared_url/numbers/COUNT"

batch=$(wrk -t2 -c8 -d"${seconds}s" -H "Authorization: Bearer $token" "$url/numbers/SNOW?count=1000" | awk '/^Requests\/sec/ { print $2 }')
awk -v rate="$batch" 'BEGIN { printf "\nsnowflake, count=1000: %.0f numbers/s\n", rate * 1000 }'
disturbance_end || true

# --------------------------------------------------------------------------------------------- PostgreSQL

for folder in /usr/lib/postgresql/*/bin; do [ -x "$folder/postgres" ] && PATH=$folder:$PATH; done
pg=$(mktemp -d /tmp/numgen-bench-pg.XXXXXX)
# PostgreSQL refuses to run as root.
server_user=()
if [ "$(id -u)" = 0 ]; then
  chown 65534:65534 "$pg"
  server_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
pg_port=$(free_port)
(cd / && "${server_user[@]}" initdb --auth=trust --encoding=UTF8 --locale=C --username=numgen -D "$pg/data") >"$work/initdb.log"
# Durability as it is out of the box; memory and checkpoints as any server of size has them.
(cd / && exec "${server_user[@]}" postgres -D "$pg/data" -p "$pg_port" -c listen_addresses=127.0.0.1 -c "unix_socket_directories=$pg" \
  -c max_connections=200 -c shared_buffers=256MB -c max_wal_size=4GB) >"$work/postgres.log" 2>&1 &
postgres=$!
pids+=("$postgres")
query() { psql -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$pg_port" -U numgen -d "$1" -c "$2"; }
for _ in $(seq 200); do query postgres 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.05; done

query postgres 'CREATE TABLE one_row (id integer PRIMARY KEY, last bigint NOT NULL) WITH (fillfactor = 20); INSERT INTO one_row VALUES (1, 0)'
echo 'UPDATE one_row SET last = last + 1 WHERE id = 1 RETURNING last' >"$work/one_row.sql"
pgbench_rate() {
  pgbench -n -M prepared -f "$work/one_row.sql" -c 64 -j 2 -T "$seconds" -h 127.0.0.1 -p "$pg_port" -U numgen postgres 2>/dev/null |
    awk '/^tps/ { print $3 }'
}

# Each strategy on a database of its own: no node is another's rival.
declare -A pg_server pg_url
for locking in row optimistic; do
  query postgres "CREATE DATABASE $locking"
  pg_listen=$(free_port)
  pg_admin=$(free_port)
  NUMGEN_DATABASE_URL="postgres://numgen@127.0.0.1:$pg_port/$locking?sslmode=disable" NUMGEN_STRICT_LOCKING=$locking \
    NUMGEN_DATA_DIR="$work/pg-$locking" NUMGEN_LISTEN="127.0.0.1:$pg_listen" NUMGEN_ADMIN_LISTEN="127.0.0.1:$pg_admin" \
    NUMGEN_RATE_LIMIT_MANAGEMENT=0 "$numgen" serve >"$work/pg-$locking.log" 2>&1 &
  pg_server[$locking]=$!
  pids+=("${pg_server[$locking]}")
  pg_url[$locking]=http://127.0.0.1:$pg_listen
  wait_for "$pg_admin"
done
# An empty database settles for 5 s before a worker gets a window.
sleep 6
for locking in row optimistic; do
  register "${pg_url[$locking]##*:}" STRICT '{"format":"INV-{SEQ:9}","mode":"strict"}'
  register "${pg_url[$locking]##*:}" COUNT '{"format":"CNT-{SEQ:9}"}'
done
for number in $(seq 0 999); do
  register "${pg_url[row]##*:}" "S$number" "{\"format\":\"S$number-{SEQ:9}\",\"mode\":\"strict\"}"
done
cat >"$work/spread.lua" <<'LUA'
-- The next of the 1,000 rules with each request of a thread.
local at = 0
function setup(thread) thread:set("at", math.random(0, 999)) end
function request()
  at = (at + 1) % 1000
  return wrk.format("GET", "/numbers/S" .. at)
end
LUA

printf '\n%-28s %6s %12s %10s %10s %8s\n' what conns numbers/s p50 p99 ratio
strict() { # name, connections, pgbench's rate, arguments of wrk ...
  local out rate name=$1 count=$2 one_row=$3
  shift 3
  out=$(wrk -t2 -c"$count" -d"${seconds}s" --latency -H "Authorization: Bearer $token" "$@")
  rate=$(awk '/^Requests\/sec/ { print $2 }' <<<"$out")
  printf '%-28s %6s %12.0f %10s %10s %8.1f%s\n' "$name" "$count" "$rate" "$(awk '$1 == "50%" { print $2 }' <<<"$out")" \
    "$(awk '$1 == "99%" { print $2 }' <<<"$out")" "$(awk -v a="$rate" -v b="$one_row" 'BEGIN { print a / b }')" \
    "$(awk '/Non-2xx/ { printf "  %s refused!", $NF } /Socket errors/ { printf "  %s", $0 }' <<<"$out")"
}
# Each counter is made before: that takes ten times as long as drawing on it, and is done once.
wrk -t2 -c64 -d3s -H "Authorization: Bearer $token" -s "$work/spread.lua" "${pg_url[row]}" >"$work/warm.log"
# Machines change their mood: pgbench before and after, and the better of the two is what counts.
disturbance_begin
before=$(pgbench_rate)
for _ in 1 2; do
  strict 'strict, row' 64 "$before" "${pg_url[row]}/numbers/STRICT"
  strict 'strict, optimistic' 64 "$before" "${pg_url[optimistic]}/numbers/STRICT"
  strict '1,000 strict counters' 64 "$before" -s "$work/spread.lua" "${pg_url[row]}"
  strict 'continuous, PostgreSQL' 64 "$before" "${pg_url[row]}/numbers/COUNT"
done
after=$(pgbench_rate)
printf 'pgbench, one row, 64 clients: %.0f/s before, %.0f/s after (ratios are to the first)\n' "$before" "$after"
disturbance_end || true

# A ledger that has ten million rows already: BENCH_LEDGER=10000000. They are another counter's.
if [ "${BENCH_LEDGER:-0}" -gt 0 ]; then
  query row "INSERT INTO numgen_ledger (counter, prefix, sequence, number, state, subject, issued_at_ms, hash)
    SELECT c.id, c.prefix, 10000000000 + n, 'OLD-' || n, 'issued', 'bench', 0, sha256(n::text::bytea)
    FROM generate_series(1, $BENCH_LEDGER) n, numgen_ledger_counters c JOIN numgen_ledger_keys k ON k.id = c.prefix
    WHERE k.prefix_key = 'S0'" >/dev/null
  query row 'VACUUM ANALYZE numgen_ledger' >/dev/null
  strict "strict, $BENCH_LEDGER rows" 64 "$before" "${pg_url[row]}/numbers/STRICT"
  for key in S1 STRICT; do
    began=$(now_ms)
    exec 3<>"/dev/tcp/127.0.0.1/${pg_url[row]##*:}"
    printf 'GET /ledger/%s/certificate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n' "$key" "$token" >&3
    answer=$(cat <&3)
    grep -q ' 200 ' <<<"$answer" || { echo "$answer" >&2; exit 1; }
    echo "certificate of $(sed -n 's/.*"count":"\{0,1\}\([0-9]*\).*/\1/p' <<<"$answer") rows beside them: $(($(now_ms) - began)) ms"
  done
fi
