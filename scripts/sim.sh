#!/bin/sh
# Runs simulated clusters (src/sim), one for each seed, and names the seeds that fail.
#
#   scripts/sim.sh [--seeds A..B] [--trace]
#
# --seeds   which (both ends included); 1..100 if nothing is said
# --trace   prints every event: to see what happened, or where two runs of a seed part
set -eu
cd "$(dirname "$0")/.."
seeds=1..100
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) seeds=${2:?--seeds A..B}; shift 2 ;;
    --trace) export DFS_SIM_TRACE=1; shift ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
DFS_SIM_SEEDS=$seeds exec cargo test --profile sim --lib sim::tests::seeds_that_were_asked_for -- \
    --ignored --exact --nocapture
