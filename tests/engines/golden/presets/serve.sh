#!/usr/bin/env bash
# vllm 0.33.0 on ib: 32 GPUs, TP 1, EP 32, PP 1, DP 32, batch 64 per attention rank.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$HERE/env.sh"
# Name or address of the instance's node 0, which every node of the instance must reach.
: "${HEAD_ADDRESS:?is not set}"
# Port that node 0 serves on.
: "${PORT:=8000}"
# Port of node 0 where the nodes of an instance meet.
: "${RENDEZVOUS_PORT:=29500}"
# Port of node 0 where the attention ranks of an instance meet.
: "${RANKS_PORT:=29550}"

args=(
  --tensor-parallel-size 1
  --data-parallel-size 32
  --data-parallel-size-local 8
  --nnodes 4
  --master-addr "$HEAD_ADDRESS"
  --master-port "$RENDEZVOUS_PORT"
  --data-parallel-address "$HEAD_ADDRESS"
  --data-parallel-rpc-port "$RANKS_PORT"
  --enable-expert-parallel
  --all2all-backend deepep_low_latency
  --gpu-memory-utilization 0.92
  --max-model-len 5120
  --max-num-seqs 64
  --max-num-batched-tokens 256
)
# Number of this OS node in the instance.
: "${NODE_RANK:?is not set}"
args+=(--node-rank "$NODE_RANK")
if [ "$NODE_RANK" = 0 ]; then
  args+=(--host 0.0.0.0 --port "$PORT")
else
  args+=(--headless)
fi
exec vllm serve deepseek-ai/DeepSeek-R1 "${args[@]}"
