"""Values and sizes that follow from the instance, each with its formula and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from placement.engines.presets.deepep import BULK, LOW_LATENCY, bulk_bytes, deepep, low_latency_bytes, low_latency_width
from placement.engines.presets.served import Served
from placement.engines.settings.catalog import FormulaName

#: Tokens that NVSHMEM's queues take by default: DeepEP asks for twice as many entries, and two more.
QUEUE_DEPTH = 1024
#: vLLM's default of VLLM_DEEPEP_BUFFER_SIZE_MB.
BULK_MIB = 1024
#: Tokens up to which vLLM captures graphs by default, and on Blackwell (config/vllm.py).
GRAPH_TOKENS, GRAPH_TOKENS_BLACKWELL = 512, 1024
#: SGLang captures graphs for multiples of this many sequences, and pads a step to one.
GRAPH_STEP = 8


@dataclass(frozen=True)
class Sized:
    """A value and how it came about.

    Attributes:
        value: As it is set.
        formula: With the numbers in it.
    """

    value: str
    formula: str


@dataclass(frozen=True)
class Size:
    """Something that is sized by the instance, whether or not it is set.

    Attributes:
        name: What it is. number: How much. unit: Of what.
        formula: With the numbers in it. source: Where it stands.
    """

    name: str
    number: float
    unit: str
    formula: str
    source: str


def _backend(served: Served) -> Sized | None:
    return Sized(served.backend, "the backend of the most predicted tokens/s on this fabric")


def _expert_ranks(served: Served) -> Sized | None:
    return Sized(str(served.split.ep), "expert-parallel ranks")


def _deepep_mode(served: Served) -> Sized | None:
    mode = {"prefill": "normal", "decode": "low_latency"}.get(served.serves)
    return None if mode is None else Sized(mode, f"this instance only does {served.serves}")


def _bulk_buffer_mib(served: Served) -> Sized | None:
    if served.split.ep not in deepep().chunks:
        return None
    need = -(-max(bulk_bytes(_width(served), served.split.ep)) // 2**20)
    return None if need <= BULK_MIB else Sized(str(need), f"the larger buffer needs {need} MiB")


def _graph_size(served: Served) -> Sized | None:
    blackwell = served.scenario.cluster.gpu.generation == "blackwell"
    default = GRAPH_TOKENS_BLACKWELL if blackwell else GRAPH_TOKENS
    batch = served.split.batch
    if served.serves == "prefill" or batch <= default:
        return None
    return Sized(str(batch), f"{batch} sequences in a decode step, by default {default} are captured")


def _rank_tokens(served: Served) -> Sized | None:
    if served.serves == "prefill":
        return None
    tokens = -(-served.dispatch_buffer // GRAPH_STEP) * GRAPH_STEP
    split = served.split
    told = (
        f"batch {split.batch} / (TP {split.tp} x {split.microbatches} microbatches), up to a multiple of {GRAPH_STEP}"
    )
    return Sized(str(tokens), told)


def _queue_depth(served: Served) -> Sized | None:
    tokens = served.pass_tokens
    need = 2 * (tokens + 1)
    if need <= QUEUE_DEPTH:
        return None
    depth = 1 << (need - 1).bit_length()
    return Sized(str(depth), f"2 x ({tokens} tokens + 1) = {need}, up to a power of two")


def _one_nic(served: Served) -> Sized | None:
    shared = served.scenario.cluster.gpus_per_tray
    return Sized("MAX:1", f"{shared} GPUs share the NICs of a tray") if shared > 1 else None


FORMULAS: dict[FormulaName, Callable[[Served], Sized | None]] = {
    "backend": _backend,
    "expert_ranks": _expert_ranks,
    "deepep_mode": _deepep_mode,
    "bulk_buffer_mib": _bulk_buffer_mib,
    "graph_size": _graph_size,
    "rank_tokens": _rank_tokens,
    "queue_depth": _queue_depth,
    "one_nic": _one_nic,
}


def _width(served: Served) -> int:
    model = served.scenario.model
    return model.moe.sent_width(model.hidden)


def sizes_of(served: Served) -> tuple[Size, ...]:
    """What the backend allocates for messages, and what its kernels take."""
    return tuple(_sizes(served)) if served.split.ep > 1 else ()


def _sizes(served: Served) -> Iterator[Size]:
    split, known, backend = served.split, deepep(), served.backend
    slots, sglang = split.slots, served.engine == "sglang"
    if backend in LOW_LATENCY and not (sglang and served.serves == "prefill"):
        tokens = int(room.value) if sglang and (room := _rank_tokens(served)) else served.pass_tokens
        width = low_latency_width(_width(served))
        yield Size(
            "token limit of a GPU (num_max_dispatch_tokens_per_rank)", tokens, "tokens",
            "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK" if sglang else "--max-num-batched-tokens",
            "sglang/srt/environ.py" if sglang else "vllm/model_executor/layers/fused_moe/all2all_utils.py",
        )  # fmt: skip
        yield Size(
            "low-latency buffers (num_rdma_bytes, on NVSHMEM's symmetric heap)",
            low_latency_bytes(tokens, width, slots), "bytes",
            f"2 x (2 x {slots} experts x {tokens} tokens x larger message of {width} elements + signals)",
            "DeepEP, csrc/config.hpp, LowLatencyLayout",
        )  # fmt: skip
        yield Size(
            "queue pairs to each GPU (NVSHMEM_IBGDA_NUM_RC_PER_PE, set by DeepEP)", split.slots_per_gpu, "",
            f"local experts: {slots} / {split.ep}", "DeepEP, docs/legacy.md",
        )  # fmt: skip
        yield Size(
            "queue depth that is needed (NVSHMEM_QP_DEPTH)", 2 * (tokens + 1), "entries",
            f"2 x ({tokens} tokens + 1); {QUEUE_DEPTH} by default", "DeepEP, deep_ep/buffer.py, low_latency_dispatch",
        )  # fmt: skip
        yield Size("SMs of the low-latency kernels while data is under way", 0, "SMs", "", "DeepEP, docs/legacy.md")
    bulk = backend in BULK and not (sglang and served.serves == "decode")
    if bulk and split.ep in known.chunks:
        nvlink, rdma = bulk_bytes(_width(served), split.ep)
        chunk, channels = known.chunks[split.ep], known.sms // 2
        yield Size(
            "bulk buffers over NVLink (num_nvl_bytes)", nvlink, "bytes",
            f"{channels} channels x {min(split.ep, known.peers)} GPUs x {chunk.nvlink} tokens x "
            f"(2 x {_width(served)} + {known.beside})",
            "DeepEP, csrc/config.hpp, get_nvl_buffer_size_hint",
        )  # fmt: skip
        yield Size(
            "bulk buffers over RDMA (num_rdma_bytes)", rdma, "bytes",
            f"{channels} channels x {max(1, split.ep // known.peers)} nodes x 2 x {chunk.rdma} tokens x "
            f"(2 x {_width(served)} + {known.beside + 16}) + 1 MiB" if rdma else "no RDMA within 8 ranks",
            "DeepEP, csrc/config.hpp, get_rdma_buffer_size_hint",
        )  # fmt: skip
        yield Size("SMs of the bulk kernels", known.sms, "SMs", "the default", "DeepEP, deep_ep/buffer.py")
        pairs = known.sms if sglang else known.sms // 2
        yield Size(
            "queue pairs to each GPU of other nodes", pairs if rdma else 1, "",
            "SMs" if sglang else "SMs / 2", "sglang token_dispatcher/deepep.py" if sglang else "vllm all2all.py",
        )  # fmt: skip
