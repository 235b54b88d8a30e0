#!/usr/bin/env bash
# Measures what docs/benchmarks.md tells: medians with the least and the greatest of several runs,
# each on a fresh node, and beside them what the machine itself can do in the same run.
#
#   scripts/figures.sh [ROUNDS] [BINARY]     default: 5 rounds of the binary that is shipped;
#                                            15 minutes, 10 GB in $TMPDIR
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
dfs=${2:-}
if [ -z "$dfs" ]; then
    . scripts/setup.sh
    cargo build --locked --profile dist
    dfs=${CARGO_TARGET_DIR:-target}/dist/dfs
fi
dfs=$(realpath "$dfs")
work=$(mktemp -d)
node=
cleanup() {
    if [ -n "$node" ]; then kill -9 "$node" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT
. scripts/apart.sh
apart "$work"
export DFS_GRACE=0s

now() { date +%s.%N; }
since() { echo "$(now) $1" | awk '{print $1 - $2}'; }
note() { echo "$2" >>"$work/figures/$1"; }
rss() { awk '/RssAnon/ {print $2 / 1024}' "/proc/$node/status"; }

start() { # EXTRA SETTINGS...: a node on $work/data, ready
    env "$@" "$dfs" serve --data "$work/data" --listen 127.0.0.1:0 >"$work/ready" 2>"$work/log" &
    node=$!
    until grep -q '^ready' "$work/ready"; do
        kill -0 "$node" || {
            cat "$work/log" >&2
            exit 1
        }
        sleep 0.01
    done
}

stop() {
    kill "$node"
    wait "$node" || true
    node=
}

fresh() {
    rm -rf "$work/data" "$work/.config" "$work/.local"
    start "$@"
}

# Each phase of a benchmark: requests (or MiB) a second, and latencies where there are any.
bench() { # PREFIX ARGUMENTS...
    local prefix=$1
    shift
    "$dfs" bench "$@" --scratch "$work" --json | tr '{' '\n' | grep '"phase"\|"p50_ms"' |
        sed 's/[",{}\[]/ /g; s/\]//g' >"$work/phases"
    # A line with a phase, then perhaps one with its latencies.
    awk -v prefix="$prefix" '
        /phase/ {
            match($0, /phase : *[^:]*  count/); name = substr($0, RSTART + 8, RLENGTH - 15)
            gsub(/^ +| +$/, "", name); gsub(/[ ,\/]+/, "-", name)
            for (i = 1; i <= NF; i++) {
                if ($i == "per_second") print prefix name "_per_second", substr($(i + 1), 2)
                if ($i == "seconds") print prefix name "_seconds", substr($(i + 1), 2)
                if ($i == "mib_per_second") print prefix name "_mib", substr($(i + 1), 2)
            }
        }
        /p50_ms/ {
            for (i = 1; i <= NF; i++) {
                if ($i == "p50_ms") print prefix name "_p50_ms", substr($(i + 1), 2)
                if ($i == "p99_ms") print prefix name "_p99_ms", substr($(i + 1), 2)
            }
        }' "$work/phases" | while read -r name value; do note "$name" "$value"; done
}

machine() { # What the disk and the page cache give right now, MiB a second.
    local from
    from=$(now)
    dd if=/dev/zero of="$work/raw" bs=1M count=1024 conv=fdatasync 2>/dev/null
    note machine-write-1-GiB-synced_mib "$(since "$from" | awk '{print 1024 / $1}')"
    rm "$work/raw"
    from=$(now)
    dd if=/dev/zero of="$work/raw" bs=1M count=1024 oflag=direct conv=fdatasync 2>/dev/null
    note machine-write-1-GiB-direct_mib "$(since "$from" | awk '{print 1024 / $1}')"
    from=$(now)
    dd if="$work/raw" of=/dev/null bs=1M iflag=direct 2>/dev/null
    note machine-read-1-GiB-direct_mib "$(since "$from" | awk '{print 1024 / $1}')"
    rm "$work/raw"
}

# A directory of 100,000 entries: listed as text, removed, and what others notice of that.
listings() {
    local from
    if [ ! -d "$work/many" ]; then
        mkdir "$work/many"
        (cd "$work/many" && seq -f 'a-file-with-a-longer-name-%.0f' 100000 | xargs touch)
    fi
    "$dfs" put -r "$work/many" /many -q --no-progress
    from=$(now)
    "$dfs" ls -l /many >"$work/listing"
    note ls-l-of-100000_seconds "$(since "$from")"
    [ "$(wc -l <"$work/listing")" = 100000 ]
    bench quiet. meta --clients 16 --files 20000
    from=$(now)
    "$dfs" rm -r /many
    note rm-r-of-100000_seconds "$(since "$from")"
    bench while-cleaning. meta --clients 16 --files 20000
    while "$dfs" --json status | grep -q '"deletions":[1-9]'; do sleep 0.1; done
    note cleaned-up-beside-creates_seconds "$(since "$from")"
}

# A million entries: a start after a kill, until the node answers.
a_million() {
    local entries=0 bench from
    fresh
    "$dfs" bench meta --files 1100000 --scratch "$work" >/dev/null 2>&1 &
    bench=$!
    until [ "$entries" -ge 1000000 ]; do
        sleep 1
        entries=$("$dfs" du --json / | grep -o '"entries":[0-9]*' | head -n 1 | cut -d: -f2)
    done
    kill -9 "$bench" "$node"
    wait "$bench" "$node" 2>/dev/null || true
    for _ in $(seq "$rounds"); do
        from=$(now)
        start
        "$dfs" ls / >/dev/null
        note restart-with-1000000-entries_seconds "$(since "$from")"
        note node-with-1000000-entries-RssAnon_MiB "$(rss)"
        kill -9 "$node"
        wait "$node" 2>/dev/null || true
    done
    node=
}

# Of a phase only what tells something is kept: rates, or times where one request is all of it.
tells() { # NAME
    case $1 in
        machine-* | node-* | dfs-* | *.p*-large-file_mib | *get-a-large-file_mib | *read-a-large-file_mib) ;;
        quiet.create_p99_ms | while-cleaning.create_p99_ms | unfolded.create_p99_ms) ;;
        unfolded.* | quiet.* | while-cleaning.*) return 1 ;;
        *_mib | *large-file_* | *cleaned*_per_second | *remove*) return 1 ;;
        *list*_per_second | *-files-*_seconds | *create*_seconds) return 1 ;;
        *stat*_seconds | *rename_seconds) return 1 ;;
    esac
}

mkdir "$work/figures"
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    machine
    fresh
    sleep 2
    note node-idle-RssAnon_MiB "$(rss)"
    bench meta. meta
    note node-after-meta-RssAnon_MiB "$(rss)"
    stop
    fresh
    bench data. data
    note node-after-data-RssAnon_MiB "$(rss)"
    stop
    # Folds never, against folds as they come.
    fresh DFS_FOLD_AFTER=1h DFS_FOLD_SIZE=1GiB
    bench unfolded. meta
    stop

    rm -rf "$work/data" "$work/.config" "$work/.local"
    from=$(now)
    start
    echo small >"$work/small"
    "$dfs" put "$work/small" /small -q
    note serve-and-first-put_seconds "$(since "$from")"
    head -c 1G /dev/urandom >"$work/large"
    sync
    from=$(now)
    "$dfs" put "$work/large" /large -q
    note dfs-put-1-GiB_seconds "$(since "$from")"
    from=$(now)
    "$dfs" get /large "$work/back" -q
    note dfs-get-1-GiB_seconds "$(since "$from")"
    cmp "$work/large" "$work/back"
    rm "$work/large" "$work/back"
    listings
    stop
done
a_million

printf '%-56s %12s %26s\n' figure median least-greatest
for figure in "$work"/figures/*; do
    tells "$(basename "$figure")" || continue
    sort -g "$figure" | awk -v name="$(basename "$figure")" '
        { value[NR] = $1 }
        END {
            middle = value[int((NR + 1) / 2)]
            printf "%-56s %12.3f %26s\n", name, middle, sprintf("%.3f-%.3f", value[1], value[NR])
        }'
done
