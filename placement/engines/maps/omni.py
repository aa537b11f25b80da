"""omni-infer: the placement pattern, a .npy of 0 and 1 by [device, MoE layer, expert] (`pattern_path` of its config).

Devices and layers may differ in their slots; the order of experts on a device is not said. Beside .npy, .npz files with
the one key `placement` are read, as its tools keep them.
"""

from __future__ import annotations

import io

import numpy as np

from placement.engines.content import Content
from placement.engines.expert_map import ExpertMap, ModelLayers
from placement.engines.maps.base import Extras, ReadMap
from placement.errors import InputError

_KEYS = ("", "placement")


class OmniMap:
    """The pattern of omni-infer."""

    name = "omni"
    file = "placement_pattern.npy"
    loaded_by = "omni-infer 0.4, pattern_path of its config"
    stock = True
    uneven = True

    def recognizes(self, content: Content) -> bool:
        """By being one array of three dimensions."""
        if content.kind != "arrays" or len(content.data) != 1:
            return False
        ((key, array),) = content.data.items()
        return key in _KEYS and isinstance(array, np.ndarray) and array.ndim == 3

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        (array,) = content.data.values()
        if array.dtype.kind not in "iub":
            raise content.refuse("", f"holds {array.dtype}, not 0 and 1", "store whole numbers")
        devices, layers, experts = array.shape
        if layers != len(model.moe) or experts < max(model.experts):
            raise content.refuse(
                "", f"has {layers} MoE layers of {experts} experts, the model {len(model.moe)} of {max(model.experts)}",
                "use a pattern of this model, [device, MoE layer, expert]",
            )  # fmt: skip
        if devices < 1 or np.any((array != 0) & (array != 1)):
            raise content.refuse("", "holds other numbers than 0 and 1", "store 1 where a device holds an expert")
        return ReadMap(
            ExpertMap(
                model.moe,
                tuple(
                    tuple(tuple(np.flatnonzero(array[gpu, i]).tolist()) for gpu in range(devices))
                    for i in range(layers)
                ),
            )
        )

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        pattern = np.zeros((experts.gpus, len(experts.layers), max(model.experts)), dtype=np.int32)
        for i, row in enumerate(experts.rows):
            for gpu, held in enumerate(row):
                pattern[gpu, i, list(held)] = 1
                if len(set(held)) < len(held):
                    problem = f"GPU {gpu} holds an expert twice, which a pattern of 0 and 1 can't say"
                    raise InputError("omni", f"layer {experts.layers[i]}", problem, "plan it anew")
        file = io.BytesIO()
        np.save(file, pattern, allow_pickle=False)
        return file.getvalue()
