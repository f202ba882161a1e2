#!/usr/bin/env bash
# Installs what a fresh Debian machine with a Rust toolchain lacks. What is there already stays as it is.
#
#   tests/stages/tools.sh [system] [llvm] [llvm-cov] [deny] [hurl] [bench]     (default: all but bench)
#
# Debian packages go to the usual places (through sudo when not root), Cargo's tools to target/tools. Each tool that could
# not be had is named on a line `missing: TOOL: REASON`, and the exit code is 1; the others are installed all the same.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/versions.sh

tools="$PWD/target/tools"
export PATH="$tools/bin:$PATH"
# Tools run for seconds: compiling them quickly matters more than how fast they are.
export CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=false
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16

missing=0
lacking() {
  echo "missing: $1: $2"
  missing=1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    return 126
  fi
}

# Debian starts a service with its package; the tests start servers of their own, and this machine did not ask for any.
without_services() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e $policy ]; then
    "$@"
  else
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy" || return
    "$@"
    local status=$?
    as_root rm -f $policy
    return $status
  fi
}

# Debian packages, all in one call and after one update.
packages() {
  local absent=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || absent+=("$package")
  done
  [ ${#absent[@]} = 0 ] && return
  if ! command -v apt-get >/dev/null; then
    lacking "${absent[*]}" "this is not a Debian system: install the equivalents by hand"
    return
  fi
  echo "installing ${absent[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null
  without_services as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${absent[@]}" </dev/null >/dev/null
  case $? in
    0) ;;
    126) lacking "${absent[*]}" "neither root nor sudo: run  apt-get install ${absent[*]}  as root" ;;
    *) lacking "${absent[*]}" "apt-get could not install them" ;;
  esac
}

# A tool from a crate: name of the crate, version, command that prints a version.
crate() {
  local name=$1 version=$2
  shift 2
  "$@" 2>/dev/null | grep -qF "$version" && return
  echo "installing $name $version (a minute or two)"
  cargo install --quiet --locked --root "$tools" "$name@$version" || lacking "$name" "cargo install failed"
}

install() {
  case $1 in
    system) packages build-essential pkg-config libxml2-dev libcurl4-openssl-dev libclang-dev faketime redis-server redis-sentinel postgresql ;;
    bench) packages wrk webdis redis-server postgresql ;;
    llvm)
      # Reads the coverage of exactly this compiler.
      if [ ! -x "$(dirname "$(rustc --print target-libdir)")/bin/llvm-profdata" ]; then
        rustup component add llvm-tools 2>/dev/null || lacking llvm-tools "run  rustup component add llvm-tools"
      fi
      ;;
    llvm-cov) crate cargo-llvm-cov "$LLVM_COV_VERSION" cargo llvm-cov --version ;;
    deny) crate cargo-deny "$DENY_VERSION" cargo deny --version ;;
    hurl) crate hurl "$HURL_VERSION" hurl --version ;;
    *) lacking "$1" "no such tool" ;;
  esac
}

[ $# -gt 0 ] || set -- system llvm llvm-cov deny hurl
for tool in "$@"; do install "$tool"; done
exit $missing
