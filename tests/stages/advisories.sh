#!/usr/bin/env bash
# Known vulnerabilities of what is built in (RustSec), by cargo-deny; deny.toml has the policy.
#
# The database is fetched where there is a network. Where there is none the copy from last time decides, as long as it is not older than
# `maximum-db-staleness`. With neither, nothing is known: that is said, and is exit code 3, so that a schedule can tell "not looked" from
# "found something" (1). `make test` does not run this: a build neither needs the network nor fails on a day on which nothing changed.
set -uo pipefail
cd "$(dirname "$0")/../.."
. tests/stages/versions.sh
export PATH="$PWD/target/tools/bin:$PATH"

tests/stages/tools.sh deny || exit 3

# Exceptions end.
today=$(date +%F)
failed=0
while read -r line; do
  [ -n "$line" ] || continue
  until=$(grep -oE 'until [0-9]{4}-[0-9]{2}-[0-9]{2}' <<<"$line" | cut -d' ' -f2)
  if [ -z "$until" ]; then
    echo "deny.toml: an exception without \"until YYYY-MM-DD\" in its reason: $line"
    failed=1
  elif [[ $until < $today ]]; then
    echo "deny.toml: look again at this exception, its day has passed: $line"
    failed=1
  fi
done < <(grep -E '^[^#]*\bid *= *"RUSTSEC-' deny.toml)

if timeout 120 cargo deny --log-level off fetch db; then
  how=()
else
  echo "the database cannot be fetched; going by the copy from last time"
  how=(--offline)
  if ! compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/*" >/dev/null; then
    echo "NOT RUN: no copy of the advisory database and no network to fetch it"
    exit $((failed ? 1 : 3))
  fi
fi
cargo deny --log-level warn --locked "${how[@]}" check advisories || failed=1
exit $failed
