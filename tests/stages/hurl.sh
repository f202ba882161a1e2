#!/usr/bin/env bash
# Runs the hurl suites against a binary:  tests/stages/hurl.sh BINARY [FILE.hurl ...]
#
# Each file gets a fresh server of its own in a temporary directory, and runs on it twice, the second time with other
# prefix keys: what one file leaves behind must not matter. Afterwards the server's log is searched for what must never
# be there. With HURL_REPORT=DIR, hurl writes its HTML report there.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/ports.sh
export PATH="$PWD/target/tools/bin:$PATH"

binary=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- hurl/*.hurl

work=$(mktemp -d)
server=
cleanup() {
  [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
  rm -rf "$work"
}
trap cleanup EXIT

secret="canary-$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
echo "$secret" >"$work/secret"

# One file on one fresh server. Prints what went wrong.
suite() {
  local file=$1 run status=0
  port=$(free_port)
  admin=$(free_port)
  rm -rf "$work/data" "$work/log"
  # The process sees these settings and nothing else: no numgen.toml of a developer either.
  local numgen=(env -i -C "$work" "PATH=$PATH" "HOME=$work" ${LLVM_PROFILE_FILE:+"LLVM_PROFILE_FILE=$LLVM_PROFILE_FILE"}
    "NUMGEN_DATA_DIR=$work/data" "NUMGEN_JWT_SECRET_FILE=$work/secret"
    "NUMGEN_LISTEN=127.0.0.1:$port" "NUMGEN_ADMIN_LISTEN=127.0.0.1:$admin"
    NUMGEN_RATE_LIMIT_MANAGEMENT=0 NUMGEN_LOG=trace NUMGEN_LOG_FORMAT=json "$binary")
  # `env` becomes the server: the process that is stopped below is the server itself.
  "${numgen[@]}" serve >"$work/log" 2>&1 &
  server=$!
  if ! printf 'GET http://127.0.0.1:%s/readyz\nHTTP 200\n' "$admin" |
    hurl --no-output --retry 200 --retry-interval 50ms >/dev/null 2>"$work/ready"; then
    echo "the server was not ready within 10 s:"
    tail -5 "$work/log"
    status=1
  fi
  local token issuer reader tenant
  token=$("${numgen[@]}" token --scope admin --sub tester)
  issuer=$("${numgen[@]}" token --scope numbers:issue --sub issuer)
  reader=$("${numgen[@]}" token --scope prefixes:read --sub reader)
  tenant=$("${numgen[@]}" token --scope admin --sub tenant --prefixes 'TENANT*')
  for run in "" z; do
    [ $status = 0 ] || break
    hurl --test --color ${HURL_REPORT:+--report-html "$HURL_REPORT"} \
      --variable "base=http://127.0.0.1:$port" --variable "admin=http://127.0.0.1:$admin" --variable "run=$run" \
      --variable "token=$token" --variable "issuer=$issuer" --variable "reader=$reader" --variable "tenant=$tenant" \
      "$file" >"$work/out" 2>&1 || { cat "$work/out"; status=1; }
  done
  kill -TERM "$server"
  wait "$server" || { echo "the server ended with $?"; status=1; }
  server=
  # Everything at level trace, and still: no secret, no token, no initial_seq.
  local canary
  for canary in "$secret" "$token" "$issuer" "$reader" "$tenant" 99887766; do
    if grep -qF -- "$canary" "$work/log"; then
      echo "the log contains ${canary:0:16}...: $(grep -F -m1 -- "$canary" "$work/log" | cut -c1-300)"
      status=1
    fi
  done
  if [ "$(basename "$file")" = security.hurl ] && ! grep -qE '"initial_seq(\\?)": ?(\\?)"\*{4}' "$work/log"; then
    echo 'the log of a registration does not show "initial_seq":"****"'
    status=1
  fi
  return $status
}

passed=0
failed=0
echo "running $# tests"
for file in "$@"; do
  if suite "$file" >"$work/output" 2>&1; then
    echo "test hurl::$(basename "$file" .hurl) ... ok"
    passed=$((passed + 1))
  else
    cat "$work/output"
    echo "test hurl::$(basename "$file" .hurl) ... FAILED"
    failed=$((failed + 1))
  fi
done
echo
[ $failed = 0 ] && verdict=ok || verdict=FAILED
echo "test result: $verdict. $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out"
[ $failed = 0 ]
