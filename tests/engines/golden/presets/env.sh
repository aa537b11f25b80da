# vllm on ib (h200_hgx_ib): 32 GPUs, TP 1, EP 32, PP 1, DP 32, batch 64 per attention rank, backend deepep_low_latency
# names of vllm 0.33.0, nccl 2.30.7, nvshmem 3.8.0

# Ranks meet over the network that all nodes share, not over the first that is found. (recommended)
# NVSHMEM documentation, Environment Variables <https://docs.nvidia.com/nvshmem/api/latest/gen/env.html>
export NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME='bond0'

# A virtual lane of its own keeps other traffic from delaying small messages. (recommended)
# DeepEP, docs/legacy.md, Network Configurations <https://github.com/deepseek-ai/DeepEP/blob/main/docs/legacy.md>
export NVSHMEM_IB_SL='3'

# Only the NICs of the compute rails carry messages; `=` asks for exact names (mlx5_1 alone means mlx5_10 too). (recommended)
# NCCL user guide, Environment Variables <https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html>
export NCCL_IB_HCA='=mlx5_0,mlx5_1,mlx5_2,mlx5_3,mlx5_4,mlx5_5,mlx5_6,mlx5_7'

# Ranks meet over the network that all nodes share, not over the first that is found. (recommended)
# NCCL user guide, Environment Variables <https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html>
export NCCL_SOCKET_IFNAME='=bond0'

# Without a usable RDMA NIC the start fails, where NCCL would otherwise fall back to TCP sockets unnoticed. (recommended)
# NCCL user guide, Environment Variables <https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html>
export NCCL_NET='IB'

# Measure first:
#   VLLM_DBO_COMM_SMS=20. SMs for messages where half-batches overlap (--enable-dbo); 20 is the default, the rest computes.
#   NCCL_IB_SL=3. A service level with adaptive routing spreads large messages over more paths; it adds latency to small ones.
#   NCCL_IGNORE_CPU_AFFINITY=1. Lets NCCL's threads sit beside the GPU where a container pins its processes elsewhere.
