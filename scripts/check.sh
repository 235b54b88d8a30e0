#!/usr/bin/env bash
# The one gate: formatting, lints, documentation, tests. The same that CI runs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

step() { echo "== $*"; "$@"; }

step cargo fmt --check
step cargo clippy --locked --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --no-deps --document-private-items --lib
step cargo test --locked
