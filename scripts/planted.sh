#!/usr/bin/env bash
# Plants known defects in a copy of the committed tree and runs, for each, what has to find it:
# a test that never fails proves nothing. testdata/planted/*.patch plant one defect each; their
# first lines say what it is and what finds it: a test (`# test: NAME`), a seed of the simulated
# clusters (`# seed: N`), or both. `switch` lets the environment choose one at run time, so that
# all of them need one build.
#
#   scripts/planted.sh [--sim] [NAME...]      all, or those named (without .patch)
#
# --sim     runs the seeds instead of the tests. A change of the code changes what a seed does:
#           where the one that is named finds nothing any more, those from 1 to 100 are tried, and
#           the first that finds the defect is to be named instead
#
# Exit status 1 when a defect was not found, or something fails without one.
set -euo pipefail
cd "$(dirname "$0")/.."
planted=$PWD/testdata/planted
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"

mode=test
profile=dev
if [ "${1:-}" = --sim ]; then
    mode=seed
    profile=sim
    shift
fi

work=$(mktemp -d)
tree=$work/tree
trap 'git worktree remove --force "$tree" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$tree" HEAD

# What finds a defect, empty if this mode has nothing for it.
finder() { sed -n "s/^# $mode: \([^ ]*\).*/\1/p" "$planted/$1.patch"; }

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for patch in "$planted"/*.patch; do
        name=$(basename "$patch" .patch)
        if [ -n "$(finder "$name")" ]; then names+=("$name"); fi
    done
fi

git -C "$tree" apply -C1 "$planted/switch"
for name in "${names[@]}"; do
    git -C "$tree" apply -C1 "$planted/$name.patch"
done
# Its own name: the target directory may hold other builds of the same tests.
binary=$work/tests
built=$(cd "$tree" &&
    cargo test --quiet --profile "$profile" --lib --no-run --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
cp "$built" "$binary"

# run DEFECT FINDER
run() {
    local test=$2 args=()
    if [ "$mode" = seed ]; then
        test=sim::tests::the_seed_of_this_process
        args=(--ignored)
    fi
    (cd "$tree" && DFS_PLANTED=$1 DFS_SIM_SEED=$2 timeout 900 "$binary" --exact "$test" "${args[@]}") \
        >"$work/log" 2>&1
}

# hunt DEFECT: sets `find` to the first seed that finds it.
hunt() {
    for find in $(seq 100); do
        run "$1" "$find" || return 0
    done
    return 1
}

bad=0
for find in $(for name in "${names[@]}"; do finder "$name"; done | sort -u); do
    if ! run none "$find" || ! grep -q '^test result: ok. 1 passed' "$work/log"; then
        echo "without a defect, this $mode does not pass: $find" >&2
        bad=1
    fi
done
printf '%-10s %-22s %s\n' result defect "$mode"
for name in "${names[@]}"; do
    find=$(finder "$name")
    if run "$name" "$find" && ! { [ "$mode" = seed ] && hunt "$name"; }; then
        result=MISSED
    elif grep -q '^test result: FAILED. 0 passed; 1 failed' "$work/log"; then
        result=found
    else
        result=HUNG
        tail -n 20 "$work/log" >&2
    fi
    [ "$result" = found ] || bad=1
    printf '%-10s %-22s %s\n' "$result" "$name" "$find"
    if [ "$mode" = seed ]; then
        sed -n 's/^VIOLATION \(.\{0,100\}\).*/           \1/p' "$work/log" | head -n 2
    fi
done
exit $bad
