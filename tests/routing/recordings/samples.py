"""One small recording in every form: 40 tokens of 3 sequences, 4 layers (the first is dense), top-2 of 8 experts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from placement.routing.recordings.shape import ModelShape

LAYERS, EXPERTS, TOP_K = 4, 8, 2
LENGTHS = (10, 18, 12)
TOKENS = sum(LENGTHS)
SHAPE = ModelShape(EXPERTS, TOP_K, LAYERS, (1, 2, 3), "small")
#: [slots] of each layer: ten slots of eight experts.
SLOTS = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 3], [7, 6, 5, 4, 3, 2, 1, 0, 5, 1], [3, 0, 1, 2, 7, 4, 5, 6, 6, 6],
                  [1, 1, 0, 2, 3, 4, 5, 6, 7, 0]])  # fmt: skip


def ids() -> np.ndarray:
    """[tokens, layers, k] logical ids; the dense layer is 0."""
    rng = np.random.default_rng(3)
    found = np.argsort(rng.random((TOKENS, LAYERS, EXPERTS)) - 0.5 * rng.random(EXPERTS), axis=2)[:, :, :TOP_K]
    found[:, 0] = 0
    return found.astype(np.int32)


def truth() -> np.ndarray:
    """[moe_layers, tokens, k] what a trace of it holds."""
    return ids()[:, 1:].transpose(1, 0, 2)


def counts(tokens: np.ndarray | None = None) -> np.ndarray:
    """[layers, experts] counts; the dense layer's are 0."""
    found = ids() if tokens is None else tokens
    return np.stack([np.bincount(found[:, i].ravel(), minlength=EXPERTS) * (i > 0) for i in range(LAYERS)])


def sequences() -> list[np.ndarray]:
    """[tokens, layers, k] of each sequence."""
    return np.split(ids(), np.cumsum(LENGTHS)[:-1])


def slots_of(tokens: np.ndarray) -> np.ndarray:
    """[layers, tokens, k] a slot that holds each expert; in the dense layer -1."""
    out = np.stack([np.argsort(SLOTS[i], kind="stable")[np.searchsorted(np.sort(SLOTS[i]), tokens[:, i])]
                    for i in range(LAYERS)])  # fmt: skip
    out[0] = -1
    return out.astype(np.int32)


def pt(data: Any) -> bytes:
    """The bytes of torch.save."""
    import torch

    file = io.BytesIO()
    torch.save(data, file)
    return file.getvalue()


def sglang_stat() -> bytes:
    """Mode `stat`: a window a sequence, and unused ones of the ring."""
    import torch

    windows = np.stack([*(counts(each) for each in sequences()), np.zeros((LAYERS, EXPERTS))])
    return pt({"rank": 0, "logical_count": torch.tensor(windows, dtype=torch.int32),
               "average_utilization_rate_over_window": None})  # fmt: skip


def _passes(**more: Callable[[np.ndarray], Any]) -> bytes:
    import torch

    records = [
        {"forward_pass_id": i, "rank": 0, "gatherer_key": "primary", **{k: make(each) for k, make in more.items()}}
        for i, each in enumerate(sequences())
    ]
    return pt({"records": records, "last_physical_to_logical_map": torch.tensor(SLOTS)})


def _physical(tokens: np.ndarray) -> np.ndarray:
    slots = slots_of(tokens)
    return np.stack([np.bincount(row[row >= 0], minlength=SLOTS.shape[1]) for row in slots])


def sglang_per_pass() -> bytes:
    """Mode `per_pass`: counts of slots."""
    import torch

    return _passes(global_physical_count=lambda each: torch.tensor(_physical(each)))


def sglang_per_token() -> bytes:
    """Mode `per_token`: slots of each token, eight columns of which two are used."""
    import torch

    def padded(each: np.ndarray) -> Any:
        slots = slots_of(each)
        return torch.tensor(np.concatenate([slots, np.full((LAYERS, len(each), 6), -1, np.int32)], axis=2))

    return _passes(
        input_ids=lambda each: list(range(len(each))), positions=lambda each: list(range(len(each))),
        extend_seq_lens=lambda each: [len(each)], forward_mode=lambda _: 1, topk_ids_of_layer=padded,
        misc_objects=lambda _: [], global_physical_count=lambda each: torch.tensor(_physical(each)),
    )  # fmt: skip


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """The bytes of a .safetensors file."""
    names = {"int64": "I64", "int32": "I32"}
    header, body = {}, b""
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [len(body), len(body) + len(data)]}  # fmt: skip
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def trtllm_counts() -> bytes:
    """One rank's counts: an iteration a sequence, MoE layers alone."""
    return safetensors({f"{50 + i}_{layer}": counts(each)[layer].astype(np.int64)
                        for i, each in enumerate(sequences()) for layer in (1, 2, 3)})  # fmt: skip


def trtllm_raw() -> bytes:
    """One rank's ids."""
    return safetensors({f"{50 + i}_{layer}": each[:, layer]
                        for i, each in enumerate(sequences()) for layer in (1, 2, 3)})  # fmt: skip


def npy(array: np.ndarray) -> bytes:
    """The bytes of numpy.save."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    """The bytes of numpy.savez_compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def vllm_responses() -> bytes:
    """Responses, one a line."""
    lines = []
    for i, each in enumerate(sequences()):
        text = base64.b64encode(npy(each.astype(np.uint8))).decode()
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "routed_experts": text}
        lines.append(json.dumps({"id": f"chatcmpl-{i}", "object": "chat.completion", "choices": [choice]}))
    return "\n".join(lines).encode()


def vllm_events() -> bytes:
    """The same as server-sent events."""
    return b"".join(b"data: " + line + b"\n\n" for line in vllm_responses().split(b"\n")) + b"data: [DONE]\n\n"


def vllm_appended() -> bytes:
    """The same, appended to a file without line ends."""
    return vllm_responses().replace(b"\n", b"")


def sglang_responses() -> bytes:
    """SGLang's: raw 32-bit numbers."""
    return "\n".join(
        json.dumps({"text": "yes", "meta_info": {"routed_experts": base64.b64encode(each.tobytes()).decode()}})
        for each in sequences()
    ).encode()


def vllm_loads() -> bytes:
    """EPLB load records of slots."""
    lines = [{"record_type": "eplb_load_meta", "version": 1, "num_layers": 3}]
    lines += [
        {"record_type": "eplb_load_stats", "version": 1, "step": i, "num_ranks": 2,
         "expert_load": _physical(each)[1:].tolist(), "p2l_map": SLOTS[1:].tolist()}
        for i, each in enumerate(sequences())
    ]  # fmt: skip
    return "\n".join(map(json.dumps, lines)).encode()


def _token_rows() -> list[dict[str, Any]]:
    starts = np.repeat(np.arange(3), LENGTHS)
    return [
        {"request": f"r{starts[token]}", "token": token, "layer": layer, "topk_ids": each[layer].tolist()}
        for token, each in enumerate(ids()) for layer in (1, 2, 3)
    ]  # fmt: skip


def csv_tokens() -> bytes:
    """A row for each token and layer, ids in numbered columns."""
    rows = [f"{r['request']},{r['token']},{r['layer']},{r['topk_ids'][0]},{r['topk_ids'][1]}" for r in _token_rows()]
    return "\n".join(["request,token,layer,expert_0,expert_1", *rows]).encode()


def csv_lists() -> bytes:
    """The same, layer by layer, with lists in quotes."""
    rows = sorted(_token_rows(), key=lambda r: (r["layer"], r["token"]))
    return "\n".join(
        ["sequence;layer;topk_ids", *(f'{r["request"]};{r["layer"]};"{r["topk_ids"]}"' for r in rows)]
    ).encode()


def csv_counts() -> bytes:
    """A row for each window, layer and expert."""
    rows = [f"{i},{layer},{expert},{n}" for i, each in enumerate(sequences())
            for layer, row in enumerate(counts(each)) for expert, n in enumerate(row)]  # fmt: skip
    return "\n".join(["step,layer,expert,count", *rows]).encode()


def csv_matrix() -> bytes:
    """Counts [layers, experts] without names."""
    return "\n".join(",".join(map(str, row)) for row in counts()).encode()


def json_rows() -> bytes:
    """Rows as JSON lines."""
    return "\n".join(map(json.dumps, _token_rows())).encode()


def json_sequences() -> bytes:
    """A sequence a line."""
    return "\n".join(json.dumps({"topk_ids": each.tolist()}) for each in sequences()).encode()


def json_counts() -> bytes:
    """One document, several lines."""
    return json.dumps({"logical_count": [counts(each).tolist() for each in sequences()]}, indent=1).encode()


def parquet_tokens() -> bytes:
    """Rows as Parquet."""
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_token_rows()), file)
    return file.getvalue()


#: name -> (file name, bytes, whether token choices are known). What needs a package is made when it is asked for.
SAMPLES: dict[str, tuple[str, Callable[[], bytes], bool]] = {
    "sglang_stat": ("dump.pt", sglang_stat, False),
    "sglang_per_pass": ("dump.pt", sglang_per_pass, False),
    "sglang_per_token": ("dump.pt", sglang_per_token, True),
    "trtllm_counts": ("rank0.safetensors", trtllm_counts, False),
    "trtllm_raw": ("rank0_raw.safetensors", trtllm_raw, True),
    "vllm_responses": ("out.jsonl", vllm_responses, True),
    "vllm_events": ("out.txt", vllm_events, True),
    "vllm_appended": ("out.jsonl", vllm_appended, True),
    "sglang_responses": ("out.jsonl", sglang_responses, True),
    "vllm_loads": ("eplb.jsonl", vllm_loads, False),
    "npz_trace": ("t.npz", lambda: npz(topk_ids=ids().transpose(1, 0, 2), seq_lens=np.array(LENGTHS)), True),
    "npz_tokens_first": ("t.npz", lambda: npz(topk_ids=ids(), seq_lens=np.array(LENGTHS)), True),
    "npz_k_first": ("t.npz", lambda: npz(expert_ids=ids().transpose(2, 0, 1), seq_lens=np.array(LENGTHS)), True),
    "npz_by_layer": ("t.npz", lambda: npz(**{f"layers.{i}": ids()[:, i] for i in (1, 2, 3)}), True),
    "npy_counts": ("c.npy", lambda: npy(counts()), False),
    "npy_counts_turned": ("c.npy", lambda: npy(counts().T), False),
    "csv_tokens": ("t.csv", csv_tokens, True),
    "csv_lists": ("t.csv", csv_lists, True),
    "csv_counts": ("t.csv", csv_counts, False),
    "csv_matrix": ("t.csv", csv_matrix, False),
    "json_rows": ("t.jsonl", json_rows, True),
    "json_sequences": ("t.jsonl", json_sequences, True),
    "json_counts": ("t.json", json_counts, False),
    "parquet_tokens": ("t.parquet", parquet_tokens, True),
}  # fmt: skip
#: What a sample needs.
NEEDS = {"sglang_stat": "torch", "sglang_per_pass": "torch", "sglang_per_token": "torch", "parquet_tokens": "pyarrow"}


def written(name: str, folder: Path) -> Path:
    """A sample's file in a folder."""
    file, make, _ = SAMPLES[name]
    path = folder / file
    path.write_bytes(make())
    return path
