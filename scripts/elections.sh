#!/usr/bin/env bash
# Three nodes under full load must keep their leaders: creates and stats, large files in and out,
# and a fourth node that joins and takes the place of one that is drained, for which images are cut
# and chunks move. Fails when any group's term changes.
#
#   scripts/elections.sh [--minutes N] [--binary DFS]    default: 10 minutes of a release build;
#                                                        10 GB in $TMPDIR
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=10 dfs=
while [ $# -gt 0 ]; do
    case $1 in
        --minutes) minutes=${2:?--minutes N}; shift 2 ;;
        --binary) dfs=${2:?--binary DFS}; shift 2 ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
if [ -z "$dfs" ]; then
    . scripts/setup.sh
    cargo build --locked --release
    dfs=${CARGO_TARGET_DIR:-target}/release/dfs
fi
dfs=$(realpath "$dfs")
work=$(mktemp -d)
declare -A pid=()
workers=()
cleanup() {
    touch "$work/stop"
    kill -9 "${workers[@]}" "${pid[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
. scripts/apart.sh
apart "$work"
export DFS_GRACE=0s

fail() {
    echo "elections: $*" >&2
    tail -n 20 "$work/n1.log" >&2
    exit 1
}

start() { # PLACE [ARGUMENTS OF SERVE...]: ready; its number in the cluster is in $work/PLACE.id
    local place=$1
    shift
    "$dfs" serve --data "$work/$place" --listen 127.0.0.1:0 "$@" >"$work/ready" 2>>"$work/$place.log" &
    pid[$place]=$!
    until grep -qs '^ready' "$work/ready"; do
        kill -0 "${pid[$place]}" || fail "node $place does not start"
        sleep 0.05
    done
    sed -n 's/^ready node=\([0-9]*\) .*/\1/p' "$work/ready" >"$work/$place.id"
}

join() { start "$1" --join "$first" --token "$("$dfs" token create -q)"; }

until_status() { # SECONDS PATTERN
    local last
    for _ in $(seq "$(($1 * 2))"); do
        last=$("$dfs" --json status 2>&1 || true)
        if grep -q "$2" <<<"$last"; then return; fi
        sleep 0.5
    done
    fail "not within $1 s: $2: $last"
}

# `GROUP TERM LEADER` of each group, a line each.
terms() {
    "$dfs" --json status | grep -o '"shard":[0-9]*,"prefix":"[^"]*","leader":[^,]*,"replicas":[^]]*\],"term":[0-9]*' |
        sed 's/"shard":\([0-9]*\),.*"leader":\([^,]*\),.*"term":\([0-9]*\)/\1 \3 \2/'
}

again() { # COMMAND: until the end; a failure is told
    until [ -e "$work/stop" ]; do
        if "$@" >"$work/worker.$BASHPID" 2>&1; then
            echo "$*" >>"$work/done"
        else
            { date +%T; cat "$work/worker.$BASHPID"; } >>"$work/failures"
        fi
    done
}

files() { # A tree of small files, in and away again.
    "$dfs" put -q -r "$work/small" "/small$BASHPID" && "$dfs" ls -l -R "/small$BASHPID" &&
        "$dfs" rm -r "/small$BASHPID"
    # What is removed is cleaned up in the background: not faster than that.
    for _ in $(seq 60); do
        "$dfs" --json status | grep -q '"shard":1,.*"deletions":[0-9]\{2,\}' || return 0
        sleep 1
    done
}
large() {
    "$dfs" put -q --overwrite "$work/large" "/large$BASHPID" &&
        "$dfs" get -q -f "/large$BASHPID" "$work/back$BASHPID" &&
        cmp "$work/large" "$work/back$BASHPID"
}
requests() { "$dfs" bench meta --clients 8 --files 2000 --scratch "$work"; }

start n1
first=$(sed -n 's/.*listen=\([^ ]*\) .*/\1/p' "$work/ready")
join n2
join n3
until_status 60 '"health":"green"'
mkdir "$work/small"
(cd "$work/small" && seq -f 'file%.0f' 500 | xargs -I{} sh -c 'head -c 3000 /dev/urandom >{}')
head -c 300M /dev/urandom >"$work/large"
# What an image has to carry.
for round in 1 2 3 4; do "$dfs" put -q -r "$work/small" "/kept$round"; done

terms >"$work/terms"
echo "elections: at the beginning (group, term, leader): $(paste -sd ';' "$work/terms")"
: >"$work/done" >"$work/failures"
for job in requests requests files large; do
    again "$job" &
    workers+=($!)
done

end=$(($(date +%s) + minutes * 60))
free=4
moved=0
while [ "$(date +%s)" -lt "$end" ]; do
    # A new node, and away with one that leads nothing: its replicas go to the new one.
    join "n$free"
    leaders=$(terms | cut -d' ' -f3)
    for place in "${!pid[@]}"; do
        [ "$place" != "n$free" ] && ! grep -qx "$(cat "$work/$place.id")" <<<"$leaders" && leaves=$place
    done
    id=$(cat "$work/$leaves.id")
    # Refused until the new one has its place on the ring.
    for attempt in $(seq 120); do
        "$dfs" node drain "$id" >/dev/null 2>"$work/refused" && break
        [ "$attempt" -lt 120 ] || fail "$(cat "$work/refused")"
        sleep 0.5
    done
    until "$dfs" --json node ls | tr '{' '\n' | grep "\"node\":$id," | grep -q '"drained"'; do
        [ "$(date +%s)" -lt $((end + 300)) ] || fail "node $id is not drained"
        sleep 0.5
    done
    "$dfs" node remove "$id" >/dev/null
    wait "${pid[$leaves]}" 2>/dev/null || true
    unset "pid[$leaves]"
    rm -rf "${work:?}/$leaves"
    moved=$((moved + 1)) free=$((free + 1))
    terms | diff -q - "$work/terms" >/dev/null || break
done
touch "$work/stop"
wait "${workers[@]}" 2>/dev/null || true
workers=()
terms >"$work/now"
echo "elections: at the end: $(paste -sd ';' "$work/now"); $moved nodes replaced; done: $(
    sort "$work/done" | uniq -c | awk '{printf "%s %s, ", $1, $2}')$(grep -c : "$work/failures" || true) failed"
cut -d' ' -f1,2 "$work/terms" >"$work/before"
cut -d' ' -f1,2 "$work/now" | diff "$work/before" - >/dev/null || fail "a leader changed under load"
[ -s "$work/done" ] && [ "$moved" -gt 0 ] || fail "there was no load"
[ ! -s "$work/failures" ] || { cat "$work/failures" >&2; fail "requests failed under load"; }
until_status 120 '"health":"green"'
"$dfs" fsck >/dev/null
echo "elections: none in $minutes minutes"
