#!/usr/bin/env bash
# Fuzzes the decoders with libFuzzer: scripts/fuzz.sh [SECONDS] [TARGET...]
#
# Needs `cargo install cargo-fuzz`. The stable compiler serves: RUSTC_BOOTSTRAP lets it take the
# instrumentation's flags. New inputs are kept in fuzz/corpus/TARGET (not in the repository) beside
# those of testdata/fuzz/TARGET; one that fails is left in fuzz/artifacts/TARGET. Put a copy of it
# into testdata/fuzz/TARGET with the fix: `cargo test --test corpora` tries it from then on.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/fuzz_targets | sed 's/\.rs$//')

# Without a sanitizer: there is no unsafe code of ours to watch, and it is several times faster.
export RUSTC_BOOTSTRAP=1
cargo fuzz build --sanitizer none
failed=()
for target in "${targets[@]}"; do
  echo "== $target, $seconds s"
  mkdir -p "fuzz/corpus/$target" "testdata/fuzz/$target"
  cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "testdata/fuzz/$target" -- \
    -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
    || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "found something: ${failed[*]}" >&2; exit 1; }
