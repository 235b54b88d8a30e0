#!/usr/bin/env bash
# Plants known defects in a copy of the committed tree and runs, for each, the test that has to
# find it: a test that never fails proves nothing. testdata/planted/*.patch plant one defect
# each; their first lines say what it is and which test finds it. `switch` lets the environment
# choose one at run time, so that all of them need one build.
#
#   scripts/planted.sh [NAME...]      all, or those named (without .patch)
#
# Exit status 1 when a defect was not found, or a test fails without one.
set -euo pipefail
cd "$(dirname "$0")/.."
planted=$PWD/testdata/planted
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"

work=$(mktemp -d)
tree=$work/tree
trap 'git worktree remove --force "$tree" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$tree" HEAD

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for patch in "$planted"/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi

git -C "$tree" apply -C1 "$planted/switch"
for name in "${names[@]}"; do
    git -C "$tree" apply -C1 "$planted/$name.patch"
done
# Its own name: the target directory may hold other builds of the same tests.
binary=$work/tests
built=$(cd "$tree" && cargo test --quiet --lib --no-run --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
cp "$built" "$binary"

finder() { sed -n 's/^# test: //p' "$planted/$1.patch"; }
run() { (cd "$tree" && DFS_PLANTED=$1 timeout 900 "$binary" --exact "$2") >"$work/log" 2>&1; }

bad=0
for test in $(for name in "${names[@]}"; do finder "$name"; done | sort -u); do
    if ! run none "$test" || ! grep -q '^test result: ok. 1 passed' "$work/log"; then
        echo "without a defect, this test does not pass: $test" >&2
        bad=1
    fi
done
printf '%-10s %-22s %s\n' result defect test
for name in "${names[@]}"; do
    test=$(finder "$name")
    if run "$name" "$test"; then
        result=MISSED
    elif grep -q '^test result: FAILED. 0 passed; 1 failed' "$work/log"; then
        result=found
    else
        result=HUNG
        tail -n 20 "$work/log" >&2
    fi
    [ "$result" = found ] || bad=1
    printf '%-10s %-22s %s\n' "$result" "$name" "$test"
done
exit $bad
