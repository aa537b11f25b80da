"""vllm-ascend, from 0.7 to 0.25.0: `eplb_config.expert_map_path` of --additional-config; msit writes the same file.

Layers are numbered by their place among the MoE layers, every device has equally many experts. Static maps leave
vllm-ascend with 0.25.1.
"""

from __future__ import annotations

import json
from typing import Any

from placement.engines.content import Content, only_keys, whole, whole_list
from placement.engines.expert_map import ExpertMap, ModelLayers, Row
from placement.engines.maps.base import Extras, ReadMap
from specs.documents import shown
from specs.fields import MAX_GPUS, MAX_LAYERS


class AscendMap:
    """The map of vllm-ascend."""

    name = "vllm-ascend"
    file = "expert_map.json"
    loaded_by = "vllm-ascend before 0.25.1, eplb_config.expert_map_path"
    stock = True
    uneven = False

    def recognizes(self, content: Content) -> bool:
        """By its list of layers."""
        return content.kind == "json" and {"moe_layer_count", "layer_list"} <= set(content.mapping())

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        data = content.mapping()
        only_keys(content, data, ("moe_layer_count", "layer_list"), "", "vllm-ascend writes no other field")
        count = whole(content, data["moe_layer_count"], "moe_layer_count", MAX_LAYERS)
        layers = _objects(content, data["layer_list"], "layer_list", MAX_LAYERS)
        if not count == len(layers) == len(model.moe):
            raise content.refuse(
                "moe_layer_count", f"is {count}, for {len(layers)} layers in layer_list; the model has "
                f"{len(model.moe)} MoE layers", "use a map of this model",
            )  # fmt: skip
        rows: list[Row] = []
        for i, layer in enumerate(layers):
            field = f"layer_list[{i}]"
            if whole(content, layer.get("layer_id"), f"{field}.layer_id", MAX_LAYERS) != i:
                raise content.refuse(f"{field}.layer_id", f"is not {i}", "number MoE layers from 0, in their order")
            devices = _objects(content, layer.get("device_list"), f"{field}.device_list", MAX_GPUS)
            if whole(content, layer.get("device_count"), f"{field}.device_count") != len(devices):
                raise content.refuse(f"{field}.device_count", f"is not {len(devices)}, those of its list", "mend it")
            row = []
            for j, device in enumerate(devices):
                where = f"{field}.device_list[{j}]"
                if whole(content, device.get("device_id"), f"{where}.device_id") != j:
                    raise content.refuse(f"{where}.device_id", f"is not {j}", "number devices from 0, in their order")
                row.append(whole_list(content, device.get("device_expert"), f"{where}.device_expert"))
            if len({len(held) for held in row}) > 1:
                raise content.refuse(field, "has devices of unequally many experts", "vllm-ascend wants equally many")
            if rows and len(rows[0]) != len(row):
                raise content.refuse(f"{field}.device_count", f"is {len(row)}, others {len(rows[0])}", "mend it")
            rows.append(tuple(row))
        return ReadMap(ExpertMap(model.moe, tuple(rows)))

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        model.one_size("vllm-ascend")
        held = experts.filled(None, "vllm-ascend")
        layers = [
            {
                "layer_id": i,
                "device_count": held.gpus,
                "device_list": [{"device_id": j, "device_expert": list(on)} for j, on in enumerate(row)],
            }
            for i, row in enumerate(held.rows)
        ]
        lines = ",\n".join(json.dumps(layer) for layer in layers)
        return f'{{"moe_layer_count": {len(layers)}, "layer_list": [\n{lines}\n]}}\n'.encode()


def _objects(content: Content, value: Any, field: str, most: int) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise content.refuse(field, f"is {shown(value)}", "write a list of objects")
    if len(value) > most:
        raise content.refuse(field, f"has {len(value)} entries", f"give at most {most}")
    return value
