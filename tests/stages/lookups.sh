#!/usr/bin/env bash
# Ratios, never a test:  tests/stages/lookups.sh     (LOOKUP_RULES=100000, LOOKUP_SECONDS=2, LOOKUP_ROUNDS=6)
#
# Whether a rule is found as fast among many as alone. Two Redis servers, one with a single rule and one with many, a node on each; the
# same snowflake prefix is asked of both in turn, then one at random of all against always the same one, both by a script of wrk.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/ports.sh
# The settings of whoever calls are not those of the servers.
unset "${!NUMGEN_@}" "${!OTEL_@}"
tests/stages/tools.sh bench
rules=${LOOKUP_RULES:-100000}
seconds=${LOOKUP_SECONDS:-2}
rounds=${LOOKUP_ROUNDS:-6}
cargo build --quiet --release --locked --bin numgen
numgen=$PWD/target/release/numgen

work=$(mktemp -d)
pids=()
cleanup() {
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

NUMGEN_JWT_SECRET=$(head -c 32 /dev/urandom | base64 -w0)
export NUMGEN_JWT_SECRET
bearer="Authorization: Bearer $("$numgen" token --scope admin --ttl 2h)"

declare -A url
# A node over a Redis of its own, with rules that an operator has written there.
node() { # name, how many rules
  local redis port admin
  redis=$(free_port) port=$(free_port) admin=$(free_port)
  mkdir "$1"
  redis-server --port "$redis" --bind 127.0.0.1 --dir "$work/$1" --save '' >/dev/null &
  pids+=($!)
  until redis-cli -p "$redis" ping >/dev/null 2>&1; do sleep 0.05; done
  awk -v n="$2" 'BEGIN { for (i = 0; i < n; i++) {
      key = sprintf("K%06d", i); rule = sprintf("{\"format\":\"E%06d-{SEQ:19}\"}", i)
      printf "*4\r\n$4\r\nHSET\r\n$14\r\nprefix_configs\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", length(key), key, length(rule), rule } }' |
    redis-cli -p "$redis" --pipe >/dev/null
  NUMGEN_REDIS_URL="redis://127.0.0.1:$redis" NUMGEN_DATA_DIR="$work/$1/data" NUMGEN_LISTEN="127.0.0.1:$port" \
    NUMGEN_ADMIN_LISTEN="127.0.0.1:$admin" "$numgen" serve >"$1/log" 2>&1 &
  pids+=($!)
  url[$1]=http://127.0.0.1:$port/numbers
  # Adopted, and served.
  until [ "$(redis-cli -p "$redis" HLEN 'numgen:rules:{prefix_configs}')" -ge "$2" ]; do sleep 0.5; done
  until curl -s -H "$bearer" "${url[$1]}/K000000" | grep -q '"source"'; do sleep 0.5; done
}
node alone 1
node many "$rules"

load() { # seconds, what wrk is told
  local out
  out=$(wrk -t2 -c64 -d"$1s" -H "$bearer" "${@:2}")
  ! grep -q Non-2xx <<<"$out" || { echo "refused" >&2; exit 1; }
  awk '/^Requests\/sec/ { print $2 }' <<<"$out"
}
script() { # file, what decides which rule
  echo "request = function() local any = math.random(0, $((rules - 1)))
    return wrk.format('GET', string.format('/numbers/K%06d', $2)) end" >"$1"
}
script any.lua any
script one.lua 0
# Each rule is marked as used at its first number.
for _ in 1 2 3 4; do load 8 -s any.lua "${url[many]}" >/dev/null; done

declare -A total=([alone]=0 [many]=0 [any]=0 [one]=0)
add() { total[$1]=$(awk -v a="${total[$1]}" -v b="$2" 'BEGIN { print a + b }'); }
for _ in $(seq "$rounds"); do
  add alone "$(load "$seconds" "${url[alone]}/K000000")"
  add many "$(load "$seconds" "${url[many]}/K000000")"
  add one "$(load "$seconds" -s one.lua "${url[alone]}")"
  add any "$(load "$seconds" -s any.lua "${url[many]}")"
done
ratio() { awk -v a="${total[$1]}" -v b="${total[$2]}" -v n="$rounds" 'BEGIN { printf "%.0f/s against %.0f/s: %.2f\n", a / n, b / n, a / b }'; }
echo "one rule, $rules registered, against the same alone: $(ratio many alone)"
echo "one of $rules at random, against always the same:    $(ratio any one)"
