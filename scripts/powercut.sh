#!/usr/bin/env bash
# Cuts the power of a node on a real file system: three clients put files of all sizes onto a
# journaled ext4 on a loop device; the node is frozen at a random moment, what reached the device
# by then is copied, and a node is started on the copy. What only the page cache had is lost, as
# in a power cut. Every put that was acknowledged must be there, byte for byte.
#
#   scripts/powercut.sh [ROUNDS] [BINARY]     default: 5 rounds of a release build; needs root,
#                                             loop devices, 7 GB in $TMPDIR; 30 s a round
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
dfs=${2:-}
if [ -z "$dfs" ]; then
    . scripts/setup.sh
    cargo build --locked --release
    dfs=${CARGO_TARGET_DIR:-target}/release/dfs
fi
dfs=$(realpath "$dfs")
work=$(mktemp -d)
node=
cleanup() {
    if [ -n "$node" ]; then kill -9 "$node" 2>/dev/null || true; fi
    touch "$work/stop"
    wait
    umount "$work/before" "$work/after" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work/before" "$work/after"
. scripts/apart.sh
apart "$work"
export DFS_GRACE=0s

start() { # DIRECTORY: a node on it, ready
    "$dfs" serve --data "$1/data" --listen 127.0.0.1:0 >"$work/ready" 2>"$work/log" &
    node=$!
    for _ in $(seq 600); do
        grep -q '^ready' "$work/ready" && return
        kill -0 "$node" || break
        sleep 0.1
    done
    cat "$work/log" >&2
    return 1
}

client() { # NUMBER: puts until the node does not answer; notes what was acknowledged
    local sizes=(100 5000 200000 2500000) number=0 path
    until [ -e "$work/stop" ]; do
        number=$((number + 1))
        path=/f$1.$number
        head -c "${sizes[RANDOM % 4]}" /dev/urandom >"$work/file$1"
        "$dfs" put "$work/file$1" "$path" -q --timeout 2s 2>/dev/null || return 0
        echo "$(sha256sum <"$work/file$1" | cut -d' ' -f1) $path" >>"$work/acknowledged$1"
    done
}

for round in $(seq "$rounds"); do
    rm -rf "$work"/{disk,copy,acknowledged*,stop,.config}
    truncate -s 3G "$work/disk"
    mkfs.ext4 -q "$work/disk"
    mount -o loop "$work/disk" "$work/before"
    start "$work/before"
    clients=()
    for number in 1 2 3; do
        client "$number" &
        clients+=($!)
    done
    sleep "$((2 + RANDOM % 6)).$((RANDOM % 10))"
    kill -STOP "$node"
    # No put is acknowledged any more: they all time out.
    wait "${clients[@]}"
    cp --sparse=always "$work/disk" "$work/copy"
    kill -9 "$node"
    wait "$node" 2>/dev/null || true
    umount "$work/before"

    mount -o loop "$work/copy" "$work/after"
    start "$work/after"
    count=0
    while read -r hash path; do
        count=$((count + 1))
        found=$("$dfs" cat "$path" | sha256sum | cut -d' ' -f1)
        if [ "$found" != "$hash" ]; then
            echo "powercut: round $round: $path was acknowledged and is not there" >&2
            exit 1
        fi
    done < <(cat "$work"/acknowledged*)
    checked=$("$dfs" fsck)
    echo "round $round: $count acknowledged, all there; $checked"
    kill "$node"
    wait "$node" || true
    node=
    umount "$work/after"
done
