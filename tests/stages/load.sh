#!/usr/bin/env bash
# The load tests of k6/ against servers of their own:  tests/stages/load.sh BINARY [SCRIPT ...]        (default: all)
#
#   LOAD=short         half a minute each (default), with bounds that a busy machine keeps, too: what `make test` runs, on cores that others may use meanwhile
#   LOAD=full          the objectives of the service: 5 min, of the spike and the recovery about 2, of the endurance 12 h
#   LOAD_DURATION=10m  how long baseline, endurance and strict take, each phase of batch, instead
#   LOAD_REPORT=DIR    where figures and journals go (default: target/load)
#
# Each script gets a fresh store and fresh nodes in a temporary folder. After it, k6/accounts.py looks through the journal: no
# number may have been answered twice, none may be missing without a reason.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/target/tools/python/bin:$PWD/target/tools/bin:$PATH"

numgen=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- baseline spike recovery strict batch endurance
export LOAD=${LOAD:-short}
report=$(realpath -m "${LOAD_REPORT:-target/load}")
mkdir -p "$report"
# Thousands of users have thousands of connections, on both ends.
ulimit -n "$(ulimit -Hn)" 2>/dev/null

work=
. tests/stages/servers.sh
. tests/stages/disturbance.sh
cleanup() {
  stop_all
  [ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT

seconds_of() { # 90, 90s, 10m, 12h
  local number=${1%[smh]}
  case $1 in *h) echo $((number * 3600)) ;; *m) echo $((number * 60)) ;; *) echo "$number" ;; esac
}

# One run of k6. Its journal is $report/SCRIPT.journal, its figures $report/SCRIPT.json.
k6_run() { # script, NAME=VALUE ...
  local script=$1 setting arguments=()
  shift
  for setting in "$@"; do arguments+=(-e "$setting"); done
  # k6 shares the cores with what it measures: without a collector that runs all the time, and with one tag, it takes half of them.
  GOGC=off GOMEMLIMIT=6GiB k6 run --quiet --no-color --no-usage-report --address '' --log-format raw --console-output "$report/$script.journal" \
    -e "LOAD=$LOAD" -e JOURNAL=yes -e "BASE_URL=$base_urls" -e "TOKEN=$token" -e "SUMMARY=$report/$script.json" \
    "${arguments[@]}" "k6/$script.js"
}

accounts() { # script, argument ...
  local script=$1 figures arguments=()
  shift
  for figures in "$report/$script".json*; do arguments+=(--figures "$figures"); done
  python3 k6/accounts.py --url "${base_urls%%,*}" --token "$token" "${arguments[@]}" "$@" "$report/$script".journal*
}

# Every node must still be there, and must stop as it was asked to.
nodes_end() {
  local status=0 pid
  for pid in "${nodes[@]}"; do
    kill -TERM "$pid" && wait "$pid" || { echo "a node ended with $?"; status=1; }
  done
  return $status
}

on_redis() { # nodes
  start_redis || return
  for ((node = 1; node <= $1; node++)); do
    start_numgen "node-$node" "NUMGEN_REDIS_URL=redis://127.0.0.1:$redis_port" || return
    nodes+=("$node_pid")
  done
  token=$(admin_token)
}

length=${LOAD_DURATION:+DURATION=$LOAD_DURATION}

baseline() {
  on_redis 1 && k6_run baseline $length
  local status=$?
  accounts baseline || status=1
  nodes_end && return $status
}

spike() {
  on_redis 1 && k6_run spike
  local status=$?
  accounts spike || status=1
  nodes_end && return $status
}

# Redis is stopped and started again while two nodes are asked.
recovery() {
  local away_at=5 away_for=2 within=20 k6_pid back_ms status=0
  [ "$LOAD" = full ] && away_at=30 away_for=10 within=30
  on_redis 2 || return
  k6_run recovery "AWAY_AT=$away_at" "AWAY_FOR=$away_for" &
  k6_pid=$!
  wait_for "the first request" 60 grep -q '^began' "$report/recovery.journal" || return
  sleep "$away_at"
  kill -TERM "$redis_pid" && wait "$redis_pid"
  sleep "$away_for"
  start_redis || return
  back_ms=$(date +%s%3N)
  wait "$k6_pid" || status=1
  accounts recovery --back "$back_ms" --within "$within" || status=1
  nodes_end && return $status
}

strict() {
  # Disks that others use may take seconds for one fsync; the short run is not about them.
  local timeout_ms=30000
  [ "$LOAD" = full ] && timeout_ms=5000
  start_postgres || return
  # Confirming and voiding count as management, of which a subject has 100 a second.
  start_numgen node-1 "NUMGEN_DATABASE_URL=postgres://numgen@127.0.0.1:$postgres_port/numgen?sslmode=disable" \
    NUMGEN_RATE_LIMIT_MANAGEMENT=0 NUMGEN_STORAGE_TIMEOUT_MS=$timeout_ms || return
  nodes=("$node_pid")
  token=$(admin_token)
  k6_run strict $length
  local status=$?
  accounts strict --mode strict || status=1
  nodes_end && return $status
}

batch() {
  on_redis 1 && k6_run batch $length
  local status=$?
  accounts batch || status=1
  nodes_end && return $status
}

# Resident memory of a process while it lasts: seconds and KiB, a line each.
watch_memory() { # process, seconds between
  local since=$SECONDS
  while [ -d "/proc/$1" ]; do
    awk -v at=$((SECONDS - since)) '/^VmRSS/ { print at, $2 }' "/proc/$1/status" 2>/dev/null
    sleep "$2"
  done
}

endurance() {
  local total slice=1800 every=10 warm=120 growth=5 watcher left run=0 status=0
  total=$(seconds_of "${LOAD_DURATION:-12h}")
  [ "$LOAD" = full ] || { total=$(seconds_of "${LOAD_DURATION:-15}"); every=1 warm=5 growth=50; }
  on_redis 1 || return
  watch_memory "${nodes[0]}" $every >"$report/endurance.memory" &
  watcher=$!
  for ((left = total; left > 0; left -= slice)); do
    run=$((run + 1))
    k6_run endurance "DURATION=$((left < slice ? left : slice))s" || status=1
    mv "$report/endurance.journal" "$report/endurance.journal.$run"
    mv "$report/endurance.json" "$report/endurance.json.$run"
  done
  kill "$watcher" && wait "$watcher" 2>/dev/null
  # The median of ten samples each, so that one moment does not decide.
  awk -v warm=$warm -v growth=$growth '
    function median(from,   i, j, t, a) {
      for (i = 0; i < 10; i++) a[i] = kib[from + i]
      for (i = 0; i < 10; i++) for (j = i + 1; j < 10; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
      return (a[4] + a[5]) / 2
    }
    $1 >= warm { kib[n++] = $2 }
    END {
      if (n < 10) { print "  FAILED too few samples of the memory: " n; exit 1 }
      first = median(0); last = median(n - 10); more = 100 * (last - first) / first
      held = more <= growth
      printf "  %s resident memory %.1f MiB when warm, %.1f MiB at the end: %+.1f %% (bound: %d %%)\n", held ? "ok    " : "FAILED", first / 1024, last / 1024, more, growth
      exit !held
    }' "$report/endurance.memory" || status=1
  accounts endurance || status=1
  nodes_end && return $status
}

# One script on fresh servers.
trial() { # script; sets disturbed
  local status=0
  work=$(mktemp -d)
  nodes=() base_urls='' redis_port=''
  rm -rf "$report/$1".*
  disturbance_begin
  "$1" || status=1
  # What the servers said, beside the figures.
  [ $status = 0 ] || { mkdir -p "$report/$1.logs" && cp "$work"/*.log "$report/$1.logs"; }
  disturbance_end && disturbed=yes || disturbed=
  cleanup
  return $status
}

# What fails on a machine that was left alone has failed; otherwise it is run once more.
judged() { # script
  trial "$1" && return
  [ -n "$disturbed" ] || return 1
  echo "=== $1 once more, since the machine was disturbed"
  trial "$1"
}

passed=0
failed=0
echo "running $# tests"
for script in "$@"; do
  case $script in baseline | spike | recovery | strict | batch | endurance) ;; *) echo "no script '$script'"; exit 2 ;; esac
  if judged "$script"; then
    echo "test load::$script ... ok"
    passed=$((passed + 1))
  else
    echo "test load::$script ... FAILED"
    failed=$((failed + 1))
  fi
done
echo
[ $failed = 0 ] && verdict=ok || verdict=FAILED
echo "test result: $verdict. $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out"
[ $failed = 0 ]
