#!/usr/bin/env bash
# Measures what docs/benchmarks.md tells of three nodes and a client on one machine: medians with
# the least and the greatest.
#
#   scripts/cluster_figures.sh [--rounds N] [--tries N] [--binary DFS] [PART...]
#
# Default: 3 rounds, 10 tries of each death, the binary that is shipped, all parts. Needs 25 GB in
# $TMPDIR and 4 GB of memory in /dev/shm. Parts:
#   rates    requests and contents, `dfs bench` and whole processes
#   listing  100,000 entries
#   idle     processor time and memory of nodes with nothing to do
#   gaps     the longest pause of one client's creates when a node is killed or frozen
#   repair   5 GiB of a node that is gone, until all copies are there again
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=3 tries=10 dfs= parts=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=${2:?--rounds N}; shift 2 ;;
        --tries) tries=${2:?--tries N}; shift 2 ;;
        --binary) dfs=${2:?--binary DFS}; shift 2 ;;
        rates | listing | idle | gaps | repair) parts+=("$1"); shift ;;
        *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(rates listing idle gaps repair)
if [ -z "$dfs" ]; then
    . scripts/setup.sh
    cargo build --locked --profile dist
    dfs=${CARGO_TARGET_DIR:-target}/dist/dfs
fi
dfs=$(realpath "$dfs")
work=$(mktemp -d)
fast=$(mktemp -d -p /dev/shm)
declare -A pid=()
cleanup() {
    kill -9 "${pid[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work" "$fast"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
. scripts/apart.sh
apart "$work"
mkdir "$work/figures"

fail() {
    echo "cluster_figures: $*" >&2
    tail -n 5 "$work"/n*.log >&2
    exit 1
}
now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{print $1 - $2}'; }
note() { echo "$2" >>"$work/figures/$1"; }

serve() { # PLACE [ARGUMENTS...]: ready
    local place=$1
    shift
    # Of the node that was here before.
    rm -f "$work/ready$place"
    "$dfs" serve --data "$work/n$place" --listen 127.0.0.1:0 "$@" >"$work/ready$place" 2>>"$work/n$place.log" &
    pid[$place]=$!
    until grep -qs '^ready' "$work/ready$place"; do
        kill -0 "${pid[$place]}" || fail "node $place does not start"
        sleep 0.02
    done
}

# All is well, but for the disk, which others may have filled.
until_well() { # SECONDS
    local reasons
    for _ in $(seq "$(($1 * 10))"); do
        reasons=$("$dfs" --json status 2>/dev/null | sed -n 's/.*"reasons":\[\([^]]*\)\].*/[\1]/p' |
            sed 's/"node [0-9]*: [0-9]* % of the disk is used",\{0,1\}//g')
        [ "$reasons" = '[]' ] && return
        sleep 0.1
    done
    fail "not well within $1 s: $("$dfs" status 2>&1 || true)"
}

# A new cluster: node N of it is at place N. Extra settings come as variables.
fresh() { # [VARIABLE=VALUE...]
    stop
    export DFS_GRACE=0s "$@"
    serve 1
    first=$(sed -n 's/.*listen=\([^ ]*\) .*/\1/p' "$work/ready1")
    serve 2 --join "$first" --token "$("$dfs" token create -q)"
    serve 3 --join "$first" --token "$("$dfs" token create -q)"
    until_well 60
}

stop() {
    kill -9 "${pid[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    pid=()
    rm -rf "$work"/n[0-9]* "$work/.config" "$work/.local"
}

figure() { # FILE PHASE KEY: a number of what `dfs bench --json` said
    sed 's/{"phase"/\n&/g' "$1" | grep "^{\"phase\":\"$2\"" | grep -o "\"$3\":[0-9.]*" | cut -d: -f2
}

leader() { # of the shard of /
    "$dfs" --json status | tr '{' '\n' | sed -n 's/.*"shard": *1,.*"leader": *\([0-9]*\).*/\1/p' | head -n 1
}

rates() {
    mkdir -p "$fast/small" "$fast/middle"
    (
        cd "$fast"
        head -c 80M /dev/urandom | split -b 4K -a 5 - small/f
        head -c 250M /dev/urandom | split -b 128K -a 5 - middle/f
        head -c 1G /dev/urandom >large1
        head -c 1G /dev/urandom >large2
    )
    for _ in $(seq "$rounds"); do
        fresh
        "$dfs" bench meta --clients 128 --duration 5s --json >"$work/bench"
        note "create 1 KiB, 128 clients, per second" "$(figure "$work/bench" create per_second)"
        note "create 1 KiB, 128 clients, p99 ms" "$(figure "$work/bench" create p99_ms)"
        note "stat, 128 clients, per second" "$(figure "$work/bench" "stat, linearizable" per_second)"
        "$dfs" bench meta --clients 1 --duration 3s --json >"$work/bench"
        note "create, 1 client, median ms" "$(figure "$work/bench" create p50_ms)"
        fresh
        timed "put -r of 20,000 files of 4 KiB, per second" 20480 put -q -r "$fast/small" /small
        timed "put -r -j 16 of 2,000 files of 128 KiB, per second" 2000 put -q -r -j 16 "$fast/middle" /middle
        for copy in 1 2; do
            timed "put 1 GiB, MiB per second" 1024 put -q "$fast/large$copy" "/large$copy"
            timed "get 1 GiB, MiB per second" 1024 get -q -f "/large$copy" "$fast/back"
            cmp "$fast/large$copy" "$fast/back"
            rm "$fast/back"
        done
    done
    rm -rf "$fast"/*
}

timed() { # NAME AMOUNT ARGUMENTS...: so much a second
    local from name=$1 amount=$2
    shift 2
    from=$(now)
    "$dfs" "$@"
    note "$name" "$(since "$from" | awk -v amount="$amount" '{print amount / $1}')"
}

listing() {
    local from
    mkdir "$fast/many"
    (cd "$fast/many" && seq -f 'a-file-with-a-longer-name-%.0f' 100000 | xargs touch)
    fresh
    "$dfs" put -q -r "$fast/many" /many
    for _ in $(seq $((rounds * 2))); do
        from=$(now)
        "$dfs" ls -l /many >"$work/listing"
        note "ls -l of 100,000 entries, seconds" "$(since "$from")"
        [ "$(wc -l <"$work/listing")" = 100000 ] || fail "a listing is not complete"
    done
    rm -rf "$fast"/*
}

idle() {
    local before after place
    fresh
    sleep 5
    for _ in $(seq "$rounds"); do
        before=$(ticks)
        sleep 20
        after=$(ticks)
        note "idle processor time of three nodes, percent of a core" \
            "$(echo "$before $after $(getconf CLK_TCK)" | awk '{print ($2 - $1) / $3 / 20 * 100}')"
    done
    for place in "${!pid[@]}"; do
        note "idle node, RssAnon MiB" "$(awk '/RssAnon/ {print $2 / 1024}' "/proc/${pid[$place]}/status")"
    done
}

ticks() {
    local place
    for place in "${!pid[@]}"; do cat "/proc/${pid[$place]}/stat"; done | awk '{sum += $14 + $15} END {print sum}'
}

# The greatest latency of one client that creates files while something happens to a node.
gaps() {
    local try leads other kind
    for kind in "KILL leader" "STOP leader" "KILL other" "STOP other"; do
        fresh
        for try in $(seq "$tries"); do
            leads=$(leader)
            other=$((leads % 3 + 1))
            case $kind in
                *leader) gap "longest pause, ${kind% *} of the leader of everything, ms" "${kind% *}" "$leads" ;;
                *) gap "longest pause, ${kind% *} of a node that leads nothing, ms" "${kind% *}" "$other" ;;
            esac
        done
    done
}

gap() { # NAME SIGNAL PLACE: and that node is back after
    local bench
    "$dfs" --timeout 20s bench meta --clients 1 --files 1500 --json >"$work/bench" 2>"$work/bench.err" &
    bench=$!
    until "$dfs" --json ls / 2>/dev/null | grep -q dfs-bench; do sleep 0.02; done
    sleep 0.5
    kill "-$2" "${pid[$3]}"
    wait "$bench" || fail "$(cat "$work/bench.err")"
    note "$1" "$(figure "$work/bench" "create.*" max_ms | sort -g | tail -n 1)"
    case $2 in
        STOP) kill -CONT "${pid[$3]}" ;;
        *)
            wait "${pid[$3]}" 2>/dev/null || true
            serve "$3"
            ;;
    esac
    until_well 60
}

repair() {
    local from number
    fresh DFS_OFFLINE_AFTER=5s
    serve 4 --join "$first" --token "$("$dfs" token create -q)"
    until_well 60
    for number in 1 2 3 4 5 6 7; do
        head -c 1G /dev/urandom >"$work/large"
        "$dfs" put -q "$work/large" "/large$number"
    done
    rm "$work/large"
    until_well 120
    note "repair: GiB of chunks on the lost node" "$(du -sm "$work/n4" | awk '{print $1 / 1024}')"
    kill -9 "${pid[4]}"
    from=$(now)
    # What is missing is counted once the node counts as gone.
    until missing; do [ "$(since "$from" | cut -d. -f1)" -lt 60 ] || fail "nothing is missing"; done
    while missing; do [ "$(since "$from" | cut -d. -f1)" -lt 600 ] || fail "never repaired"; done
    note "repair: seconds from the kill, 5 s of them until it counts as gone" "$(since "$from")"
    "$dfs" fsck >/dev/null || fail "fsck after the repair"
    unset DFS_OFFLINE_AFTER
}

missing() {
    sleep 0.1
    "$dfs" --json status | grep -q 'copies of chunks are missing'
}

for part in "${parts[@]}"; do
    echo "measuring: $part" >&2
    "$part"
done
stop
printf '%-62s %6s %10s %22s\n' figure runs median least-greatest
for figures in "$work"/figures/*; do
    sort -g "$figures" | awk -v name="$(basename "$figures")" '
        { value[NR] = $1 }
        END {
            middle = value[int((NR + 1) / 2)]
            printf "%-62s %6d %10.2f %22s\n", name, NR, middle, sprintf("%.2f-%.2f", value[1], value[NR])
        }'
done
