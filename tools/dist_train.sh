#!/usr/bin/env bash
# Train on several processes: tools/dist_train.sh CONFIG PROCESSES_PER_NODE [arguments of tools/train.py]
# Several nodes: run it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -eu
[ $# -ge 2 ] || { sed -n '2s/^[^:]*: /usage: /p' "$0" >&2; exit 2; }
CONFIG=$1
PROCESSES=$2
shift 2

PYTHONPATH="$(dirname "$0")/..${PYTHONPATH:+:$PYTHONPATH}" \
torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$PROCESSES" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
