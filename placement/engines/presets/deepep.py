"""DeepEP: its constants, and what its kernels take and allocate."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import Field

from specs.documents import shipped_yaml
from specs.fields import Count, Degree, Spec, Width

#: Backends that run DeepEP's low-latency kernels, and its bulk kernels (SGLang's `deepep` runs either by phase).
LOW_LATENCY, BULK = ("deepep_low_latency", "deepep"), ("deepep_high_throughput", "deepep")


class Chunk(Spec):
    """Chunks of DeepEP's bulk kernels, in tokens."""

    nvlink: Count
    rdma: Count


class DeepEp(Spec):
    """DeepEP's constants."""

    sms: Count
    chunks: dict[Degree, Chunk]
    peers: Degree
    beside: Count
    widths: Annotated[tuple[Width, ...], Field(min_length=1)]


@lru_cache(maxsize=1)
def deepep() -> DeepEp:
    """DeepEP's constants."""
    return DeepEp.model_validate(shipped_yaml(__package__, "deepep.yaml"))


def box_problem(backend: str, gpus: int, os_node_gpus: int) -> str:
    """Why DeepEP's kernels over NVSHMEM don't run over so many GPUs; "" where they do, or the backend has none.

    Over several OS nodes each must have as many GPUs as the kernels take for a node (csrc/kernels/configs.cuh; vLLM,
    v1/engine/utils.py: expert-parallel ranks 0 to 7 lie on one node).
    """
    peers = deepep().peers
    if backend not in (*LOW_LATENCY, *BULK) or gpus <= os_node_gpus or os_node_gpus == peers:
        return ""
    return f"{backend} takes OS nodes of {peers} GPUs, and these have {os_node_gpus} (DeepEP, NUM_MAX_NVL_PEERS)"


def low_latency_width(width: int) -> int:
    """The width that DeepEP's low-latency kernels run a token of `width` elements at."""
    return next((each for each in deepep().widths if each >= width), width)


def low_latency_bytes(tokens: int, width: int, experts: int) -> int:
    """Bytes of DeepEP's low-latency buffers on a GPU (csrc/config.hpp, LowLatencyLayout).

    Two halves for steps in turn; each sends and receives, and holds the larger of a dispatch and a combine.

    Args:
        tokens: Most tokens of a GPU in a step. width: Elements of a token. experts: Physical experts of a layer.
    """
    scales = width // 128
    dispatch = 16 + max(2 * width, width + 4 * scales)
    combine = 4 * scales + 2 * width
    sent = max(tokens * dispatch, experts * tokens * combine)
    received = experts * tokens * max(dispatch, combine)
    signals = -(-4 * experts // 128) * 128
    return 2 * (sent + received + signals)


def bulk_bytes(width: int, ranks: int) -> tuple[int, int]:
    """(NVLink, RDMA) bytes of DeepEP's bulk buffers on a GPU (csrc/config.hpp, Config); RDMA 0 within 8 ranks."""
    known = deepep()
    chunk, channels, token = known.chunks[ranks], known.sms // 2, 2 * width + known.beside
    inside, nodes = min(ranks, known.peers), max(1, ranks // known.peers)
    nvlink = channels * inside * (chunk.nvlink * token + 4 * (2 * nodes + 3))
    if ranks <= known.peers:
        return nvlink, 0
    rdma = channels * nodes * 2 * (chunk.rdma * (token + 16) + 4 * (2 * known.peers + 2)) + 2**20
    return nvlink, rdma
