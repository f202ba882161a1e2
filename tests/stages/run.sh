#!/usr/bin/env bash
# Everything that has to hold, one stage after the other:  tests/stages/run.sh [STAGE ...]     (default: all)
#
#   lint         rustfmt, clippy and rustdoc without warnings, cargo-deny
#   unit         cargo test --lib
#   integration  cargo test --test it: layering, and real processes that are killed and started again
#   observe      a real Prometheus on real servers: data for every panel of grafana/, cases for every alert, the runbook
#   models       every interleaving of small worlds: worker windows and continuous counters, each guard taken away in turn
#   end-to-end   hurl against the release binary
#   load         k6 against servers of its own, half a minute each: nothing fails, no number is there twice, Redis is restarted
#   manifests    k8s/ rendered and validated, Dockerfile and compose.yaml
#   coverage     what unit, integration and hurl executed; at least COVERAGE_GATE percent of the lines
#
# Unit and integration tests run on a build that counts the lines it executes; nothing is compiled or run twice for it. It is optimised a
# little: the models look through four times as many states a second, which is more than the compiler takes for it. The release binary
# is built while the integration tests wait for their servers, by what they leave of the processors.
# A failed stage does not stop the others. What could not run says so in the last lines, and fails where CI is set. Integration, observe
# and load have limits of time: what fails in them is run once more if somebody else was given the processors meanwhile, and only then
# (disturbance.sh).
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/versions.sh
. tests/stages/disturbance.sh
export PATH="$PWD/target/tools/bin:$PATH"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

# Tests kill processes, never the machine: what their servers keep can be in memory, where no neighbour makes an fsync take seconds.
scratch=
if [ "$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt $((4 << 20)) ] 2>/dev/null; then
  scratch=$(mktemp -d /dev/shm/numgen-test.XXXXXX) && chmod 755 "$scratch" && export TMPDIR=$scratch
  trap 'rm -rf "$scratch"' EXIT
fi

results=() # one line for each step: outcome, seconds, name, remark
step() {
  local name=$1 since=$SECONDS
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  if "$@"; then results+=("ok $((SECONDS - since)) $name"); else results+=("FAILED $((SECONDS - since)) $name"); fi
}

# A step that needs a tool; without it, it says so instead of passing.
step_with() {
  local tool=$1 name=$2
  shift 2
  local reason
  if reason=$(grep -E -m1 "^missing: .*($tool)" "$log"); then
    echo "=== $name: not run: ${reason#missing: }"
    results+=("NOT-RUN 0 $name (${reason#missing: })")
  else
    step "$name" "$@"
  fi
}

mkdir -p target/tools
log=target/tools/install.log
tools_pid=
tools_start() {
  : >"$log"
  local stage needed=() system=()
  for stage in "${stages[@]}"; do
    case $stage in
      lint) needed+=(deny) ;;
      unit | integration | models) needed+=(llvm llvm-cov) system=(system) ;;
      observe) needed+=(prometheus llvm llvm-cov) system=(system) ;;
      end-to-end) needed+=(hurl) system=(system) ;;
      load) needed+=(k6) system=(system) ;;
      manifests) needed+=(manifests) ;;
      coverage) needed+=(llvm llvm-cov hurl) system=(system) ;;
    esac
  done
  [ ${#system[@]} = 0 ] || tests/stages/tools.sh "${system[@]}" 2>&1 | tee -a "$log"
  # The rest is compiled while the lints are.
  tests/stages/tools.sh "${needed[@]}" >>"$log" 2>&1 &
  tools_pid=$!
}
tools_wait() {
  [ -n "$tools_pid" ] || return 0
  local since=$SECONDS
  wait "$tools_pid"
  tools_pid=
  echo "waited $((SECONDS - since)) s for tools"
}

# Where the counted tests are compiled. The lints are, too: what both need, macros of others and libraries in C, is compiled once.
counts=$PWD/target/llvm-cov-target

lint() {
  step lint::format cargo fmt --check
  step lint::clippy env CARGO_TARGET_DIR="$counts" cargo clippy --quiet --all-targets --locked -- -D warnings
  step lint::rustdoc env CARGO_TARGET_DIR="$counts" RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --locked
  tools_wait
  step_with cargo-deny lint::deny cargo deny --log-level warn check licenses bans sources
}

# Where cargo-llvm-cov is missing the tests still run, uncounted; then it is the coverage stage that did not.
cleaned= # earlier counts do not count, and binaries of earlier builds would show as never run
counted_test() {
  if grep -qE '^missing: (llvm-tools|cargo-llvm-cov)' "$log"; then
    cargo test --locked "$@"
  else
    [ -n "$cleaned" ] || cargo llvm-cov clean --workspace
    cleaned=yes
    CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo llvm-cov --no-cfg-coverage --no-report --locked test "$@"
  fi
}
# Tests that real time passes in. What failed is run once more, one at a time, where the machine was disturbed; not where so much failed
# that it is no matter of time.
AT_MOST_AGAIN=20
timed_test() { # argument of the test binary ...
  local said=target/tools/timed-test.log failed status
  disturbance_begin
  # Not in a pipe, which would be a shell of its own: what is cleaned is cleaned once.
  counted_test --test it -- "$@" > >(tee "$said") 2>&1
  status=$?
  wait $! # for the last words
  disturbance_end || return "$status"
  mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$said")
  [ "$status" != 0 ] && [ ${#failed[@]} -gt 0 ] && [ ${#failed[@]} -le $AT_MOST_AGAIN ] || return "$status"
  echo "=== once more, since the machine was disturbed: ${failed[*]}"
  counted_test --test it -- --exact --nocapture --test-threads 1 "${failed[@]}"
}

unit() { tools_wait; step unit counted_test --lib; }
integration() {
  tools_wait
  release_start
  # Where the fault scenarios write how long the service needed to be back to normal.
  export NUMGEN_TEST_REPORT=$PWD/target/tools/recovery-times
  rm -f "$NUMGEN_TEST_REPORT"
  # Most of them wait for their servers most of the time.
  step integration timed_test --skip monitoring:: --test-threads $(($(nproc) + 1))
}

observe() { tools_wait; step_with prometheus observe timed_test --nocapture monitoring::; }

models() { tools_wait; step models counted_test --test models; }

# The binary is built once; ahead, where a later stage wants it.
release_pid=
released=
release_start() {
  case " ${stages[*]} " in *" end-to-end "* | *" load "* | *" manifests "*) ;; *) return ;; esac
  nice -n 19 cargo build --quiet --release --locked >target/tools/release.log 2>&1 &
  release_pid=$!
}
release_wait() {
  wait "$release_pid" || { cat target/tools/release.log; return 1; }
}
release() {
  [ -z "$released" ] || return
  released=yes
  if [ -n "$release_pid" ]; then step build::release release_wait; else step build::release cargo build --quiet --release --locked; fi
}

end_to_end() {
  tools_wait
  release
  step_with hurl end-to-end tests/stages/hurl.sh target/release/numgen
}

load() {
  tools_wait
  release
  step_with k6 load tests/stages/load.sh target/release/numgen
}

manifests() {
  tools_wait
  release
  step_with 'kubernetes-validate|check-jsonschema|kustomize' manifests tests/stages/manifests.sh target/release/numgen
}

coverage() {
  tools_wait
  step_with 'llvm|hurl' coverage coverage_gate
}
coverage_gate() {
  # The suites once more, against the counting binary: lines that only they reach count too.
  LLVM_PROFILE_FILE="$counts/numgen-%p-%m.profraw" \
    tests/stages/hurl.sh "$counts/debug/numgen" >"$counts/hurl.log" 2>&1 || { tail -20 "$counts/hurl.log"; return 1; }
  cargo llvm-cov report --locked --fail-under-lines "$COVERAGE_GATE"
}

stages=("$@")
[ $# -gt 0 ] || stages=(lint unit integration observe models end-to-end load manifests coverage)
for stage in "${stages[@]}"; do
  case $stage in
    lint | unit | integration | observe | models | end-to-end | load | manifests | coverage) ;;
    *) echo "no stage '$stage'"; exit 2 ;;
  esac
done
tools_start
for stage in "${stages[@]}"; do
  case $stage in
    lint) lint ;;
    unit) unit ;;
    integration) integration ;;
    observe) observe ;;
    models) models ;;
    end-to-end) end_to_end ;;
    load) load ;;
    manifests) manifests ;;
    coverage) coverage ;;
  esac
done
tools_wait >/dev/null

[ ! -e "${NUMGEN_TEST_REPORT:-}" ] || { printf '\n'; sort "$NUMGEN_TEST_REPORT"; }

# The summary, in the words of cargo test, so that whoever counts tests counts these too. Stages whose tests have been
# counted above are left out of the count.
declare -i passed=0 failed=0 absent=0
printf '\n'
lines=()
for result in "${results[@]}"; do
  read -r outcome seconds name <<<"$result"
  printf '%-8s %5d s  %s\n' "$outcome" "$seconds" "$name"
  case $outcome in
    ok) passed+=1 lines+=("test stage::$name ... ok") ;;
    FAILED) failed+=1 lines+=("test stage::$name ... FAILED") ;;
    NOT-RUN) absent+=1 lines+=("test stage::$name ... ignored") ;;
  esac
done
printf '%-8s %5d s  %s\n\n' total "$SECONDS" "${stages[*]}"
grep '^missing: ' "$log" && absent+=1
echo "running ${#results[@]} tests"
printf '%s\n' "${lines[@]}"
[ $absent -gt 0 ] && [ -n "${CI:-}" ] && failed+=$absent
[ $failed = 0 ] && verdict=ok || verdict=FAILED
printf '\ntest result: %s. %d passed; %d failed; %d ignored; 0 measured; 0 filtered out; finished in %d.00s\n' \
  "$verdict" $passed $failed $absent $SECONDS
[ $failed = 0 ]
