#!/usr/bin/env bash
# Renders every overlay of k8s/ and looks at it, at Dockerfile and at compose.yaml:  tests/stages/manifests.sh [BINARY]
#
# With BINARY, numgen itself says whether it takes the settings of each overlay. What needs a cluster or a Docker daemon (scheduling,
# probes, the build of the image) is not tried here.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/versions.sh
export PATH="$PWD/target/tools/python/bin:$PWD/target/tools/bin:$PATH"

# kubectl carries a kustomize, too: what people apply with is what renders here.
if kubectl kustomize --help >/dev/null 2>&1 && ! kubectl version --client 2>/dev/null | grep -q '^Kustomize Version: v[1-3]\.'; then
  render=(kubectl kustomize)
else
  render=(kustomize build)
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
# Passes the lines of a checker on, and counts its tests.
count() {
  local line
  while read -r line; do
    printf '%s\n' "$line"
    case $line in 'test '*'... ok') passed=$((passed + 1)) ;; 'test '*'... FAILED') failed=$((failed + 1)) ;; esac
  done
}

overlays=()
for folder in k8s/overlays/*/; do
  name=$(basename "$folder")
  if "${render[@]}" "$folder" >"$work/$name.yaml" 2>"$work/error" && [ ! -s "$work/error" ]; then
    echo "test manifests::render_$name ... ok"
    overlays+=("$name=$work/$name.yaml")
  else
    sed 's/^/  /' "$work/error"
    echo "test manifests::render_$name ... FAILED"
  fi
done >"$work/rendered"
count <"$work/rendered"

# One that breaks off has failed, whatever it had found until then.
python3 tests/stages/manifests.py --settings README.md ${1:+--binary "$1"} "${overlays[@]}" >"$work/checked" 2>&1 ||
  grep -q '^test .* \.\.\. FAILED$' "$work/checked" || echo 'test manifests::checker ... FAILED' >>"$work/checked"
count <"$work/checked"

if check-jsonschema --builtin-schema vendor.compose-spec compose.yaml >"$work/compose" 2>&1; then
  echo 'test manifests::compose_schema ... ok'
else
  sed 's/^/  /' "$work/compose"
  echo 'test manifests::compose_schema ... FAILED'
fi >"$work/composed"
count <"$work/composed"

echo
[ $failed = 0 ] && verdict=ok || verdict=FAILED
echo "test result: $verdict. $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out"
[ $failed = 0 ]
