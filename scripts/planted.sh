#!/usr/bin/env bash
# Plants known defects, one at a time, in a copy of the committed tree and runs the test that has
# to find each: a test that never fails proves nothing. Patches are testdata/planted/*.patch;
# their first lines say what the defect is and which test finds it.
#
#   scripts/planted.sh [NAME...]      all, or those named (without .patch)
#
# Exit status 1 when a defect was not found.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"

work=$(mktemp -d)
tree=$work/tree
trap 'git worktree remove --force "$tree" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$tree" HEAD

if [ $# -eq 0 ]; then
    set -- $(cd testdata/planted && printf '%s\n' *.patch | sed 's/\.patch$//')
fi

header() { sed -n "s/^# $1: //p" "$2" | head -n 1; }

missed=0
printf '%-10s %-22s %s\n' result defect test
for name in "$@"; do
    patch=$root/testdata/planted/$name.patch
    finder=$(header test "$patch")
    git -C "$tree" checkout --quiet --force HEAD
    git -C "$tree" apply -C1 "$patch"
    log=$work/$name.log
    if ! (cd "$tree" && cargo test --quiet --lib --no-run) >"$log" 2>&1; then
        result='no build'
        tail -n 20 "$log" >&2
    elif (cd "$tree" && timeout 900 cargo test --quiet --lib -- --exact "$finder") >"$log" 2>&1; then
        result=MISSED
    elif grep -q "^test result: FAILED. 0 passed; 1 failed" "$log"; then
        result=found
    else
        # The test hung, or there is none of that name.
        result=UNCLEAR
        tail -n 20 "$log" >&2
    fi
    [ "$result" = found ] || missed=1
    printf '%-10s %-22s %s\n' "$result" "$name" "$finder"
done
exit $missed
