#!/usr/bin/env bash
# Tortures a cluster of real processes: clients work and know what must be there, while nodes are
# killed, stopped and restarted, one or all at once, stored bits flip; and, as root, while networks
# are cut (full, one way, between two) and the power of machines goes (ext4 on loop devices).
# tests/torture is the program; this prepares what it needs and removes it again.
#
#   scripts/torture.sh [--minutes N] [--seed S] [--clients N] [--release] [--quick]
#
# --minutes   of torture; 10 if nothing is said
# --seed      the same troubles again, as far as real processes repeat anything
# --release   a release build; debug, with all its checks, if nothing is said
# --quick     without the tests that only this script runs beside it
#
# DFS_TEST_BINARY names another program to torture. Needs 9 GB in $TMPDIR,
# and up to 0.8 GB more a minute. A failure leaves the nodes' directories and the clients' journals
# behind and says where.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=10 seed= clients= release= quick=
while [ $# -gt 0 ]; do
    case $1 in
        --minutes) minutes=${2:?--minutes N}; shift 2 ;;
        --seed) seed=${2:?--seed S}; shift 2 ;;
        --clients) clients=${2:?--clients N}; shift 2 ;;
        --release) release=--release; shift ;;
        --quick) quick=1; shift ;;
        *) sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
. scripts/setup.sh
work=$(mktemp -d)
prefix=dfst$$n
bridge=dfsb$$
nodes=3

cleanup() {
    set +e
    for mounted in $(awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts); do
        umount "$mounted" 2>/dev/null || umount -l "$mounted"
    done
    for node in $(seq 0 $((nodes - 1))); do
        ip netns del "$prefix$node" 2>/dev/null
        ip link del "${prefix}v$node" 2>/dev/null
    done
    ip link del "$bridge" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

network() { # A namespace a node, all on one bridge, on which clients are too.
    ip link add "$bridge" type bridge || return
    ip addr add 10.77.0.254/24 dev "$bridge"
    ip link set "$bridge" up
    local node
    for node in $(seq 0 $((nodes - 1))); do
        ip netns add "$prefix$node" || return
        ip link add "${prefix}v$node" type veth peer name eth0 netns "$prefix$node"
        ip link set "${prefix}v$node" master "$bridge" up
        ip -n "$prefix$node" link set lo up
        ip -n "$prefix$node" addr add "10.77.0.$((node + 1))/24" dev eth0
        ip -n "$prefix$node" link set eth0 up
    done
}

disks() { # Whether loop devices can be mounted here.
    command -v mkfs.ext4 >/dev/null || return
    truncate -s 32M "$work/try"
    mkfs.ext4 -q "$work/try" && mkdir "$work/tried" && mount -o loop "$work/try" "$work/tried" &&
        umount "$work/tried" && rm -r "$work/try" "$work/tried"
}

# Built before anything is made that must be removed again.
built() { # TEST: its program
    cargo test $release --locked --test "$1" --no-run --message-format=json-render-diagnostics |
        grep '"kind":\["test"\]' | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}
torture=$(built torture)
strangers=$(built strangers)
lost=$(built lost_chunks)

export DFS_TEST_KEEP=1 DFS_TORTURE_MINUTES=$minutes DFS_TORTURE_SEED=$seed DFS_TORTURE_CLIENTS=$clients
if [ "$(id -u)" = 0 ] && network 2>"$work/why"; then
    export DFS_TORTURE_NETWORK=$prefix
else
    echo "torture: WITHOUT PARTITIONS: no network namespaces here ($(tail -n 1 "$work/why" 2>/dev/null))"
fi
if [ "$(id -u)" = 0 ] && disks 2>"$work/why"; then
    export DFS_TORTURE_DISKS=$work
else
    echo "torture: WITHOUT POWER CUTS: no loop devices here ($(tail -n 1 "$work/why" 2>/dev/null))"
fi

one() { "$1" --exact "$2" --ignored --nocapture --test-threads 1; }
if [ -n "${DFS_TORTURE_DISKS:-}" ] && [ -z "$quick" ]; then
    one "$torture" without_syncs_a_power_cut_loses_data
fi
one "$torture" torture
if [ -z "$quick" ]; then
    one "$strangers" ten_thousand_idle_connections_do_no_harm
    one "$lost" chunks_of_removed_files_go_after_gc_now
fi
echo "torture: passed"
