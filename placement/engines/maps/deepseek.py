"""DeepSeek's EPLB: the triple that `rebalance_experts` returns, as arrays of one .npz (or .pt) file.

`phy2log` [layers, slots]; `log2phy` [layers, experts, most copies], padded with -1; `logcnt` [layers, experts]. MoE
layers only.
"""

from __future__ import annotations

import io

import numpy as np

from placement.engines.content import Content, only_keys, whole_rows
from placement.engines.expert_map import ExpertMap, ModelLayers
from placement.engines.maps.base import Extras, ReadMap, moe_rows, same_length
from placement.problem.arrays import IntArray

KEYS = ("phy2log", "log2phy", "logcnt")


def triple(rows: IntArray, experts: int) -> tuple[IntArray, IntArray, IntArray]:
    """[layers, slots], [layers, experts, most copies] and [layers, experts] of [layers, slots] logical experts."""
    counts = np.stack([np.bincount(row, minlength=experts) for row in rows])
    slots_of = np.full((len(rows), experts, int(counts.max())), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        for expert in range(experts):
            held = np.flatnonzero(row == expert)
            slots_of[i, expert, : len(held)] = held
    return rows, slots_of, counts


class DeepseekMap:
    """The triple of DeepSeek's balancer."""

    name = "deepseek"
    file = "eplb.npz"
    loaded_by = "whatever takes what DeepSeek's EPLB returns"
    stock = True
    uneven = False

    def recognizes(self, content: Content) -> bool:
        """By its keys."""
        return content.kind in ("json", "arrays") and KEYS[0] in content.mapping()

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        data = content.mapping()
        only_keys(content, data, KEYS, "", "EPLB returns these three")
        rows = whole_rows(content, data[KEYS[0]], KEYS[0])
        same_length(content, rows, KEYS[0])
        moe_rows(content, rows, model, KEYS[0])
        held = ExpertMap.from_flat(model.moe, rows, gpus, content.source)
        held.check(model, content.source)
        made = dict(zip(KEYS, triple(np.array(rows), model.one_size("deepseek")), strict=True))
        for key in KEYS[1:]:
            if key in data:
                self._agrees(content, key, data[key], made[key])
        return ReadMap(held)

    def _agrees(self, content: Content, key: str, given: object, made: IntArray) -> None:
        """Whether the rest of the triple says the same; copies may stand in any order, with more padding."""
        try:
            array = np.asarray(given)
        except ValueError:
            array = np.empty(0)
        if array.dtype.kind not in "iu" or array.ndim != made.ndim or array.shape[:2] != made.shape[:2]:
            raise content.refuse(
                key, f"has shape {list(array.shape)} for a phy2log that needs {list(made.shape)}", "write all anew"
            )
        if array.ndim == 3:
            width = max(array.shape[2], made.shape[2])
            array, made = (
                np.sort(np.pad(one, ((0, 0), (0, 0), (0, width - one.shape[2])), constant_values=-1), axis=2)
                for one in (array, made)
            )
        if not np.array_equal(array, made):
            layer, expert = (int(at) for at in np.argwhere(array != made)[0][:2])
            raise content.refuse(f"{key}[{layer}][{expert}]", "does not follow from phy2log", "write all three anew")

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        count = model.one_size("deepseek")
        held = experts.filled(None, "deepseek")
        rows = np.array([held.flat(i) for i in range(len(held.layers))], dtype=np.int64)
        file = io.BytesIO()
        phy2log, log2phy, logcnt = triple(rows, count)
        np.savez_compressed(file, phy2log=phy2log, log2phy=log2phy, logcnt=logcnt)
        return file.getvalue()
