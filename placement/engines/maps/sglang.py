"""SGLang 0.5.23: `--init-expert-location FILE`, read by srt/eplb/expert_location.py.

A .json or .pt file with the one key `physical_to_logical_map`, [layers][slots]: any other key beside it is an argument
that the reader does not know, and it crashes. There is a row for every hidden layer; those of dense layers serve
nobody, but every expert must stand in them. Another suffix is taken for JSON text.
"""

from __future__ import annotations

import json

from placement.engines.content import Content, only_keys, whole_rows
from placement.engines.expert_map import ExpertMap, ModelLayers, in_order
from placement.engines.maps.base import Extras, ReadMap, same_length

KEY = "physical_to_logical_map"
COUNTS = "logical_count"


class SglangMap:
    """The map of SGLang."""

    name = "sglang"
    file = "expert_location.json"
    loaded_by = "sglang 0.5.23, --init-expert-location"
    stock = True
    uneven = False

    def recognizes(self, content: Content) -> bool:
        """By either key that SGLang looks for."""
        return content.kind in ("json", "arrays") and bool({KEY, COUNTS} & set(content.mapping()))

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        data = content.mapping()
        if KEY not in data:
            raise content.refuse(
                COUNTS,
                "is load, not a map: SGLang runs its own balancer on it",
                "read it with 'placement trace convert'",
            )
        only_keys(content, data, (KEY,), "", "SGLang crashes on any other key")
        rows = whole_rows(content, data[KEY], KEY)
        same_length(content, rows, KEY)
        if len(rows) != model.hidden:
            problem = f"has {len(rows)} rows, SGLang wants one for each of {model.hidden} hidden layers"
            if len(rows) == len(model.moe):
                problem += ": these are those of the MoE layers alone"
            raise content.refuse(KEY, problem, "add rows for dense layers, or use a map of this model")
        held = ExpertMap.from_flat(model.moe, [rows[layer] for layer in model.moe], gpus, content.source)
        dense = model.hidden - len(model.moe)
        return ReadMap(held, (f"the rows of dense layers ({dense}) are left out",) if dense else ())

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        count = model.one_size("sglang")
        held = experts.filled(None, "sglang")
        slots = len(held.flat(0))
        rows = {layer: held.flat(i) for i, layer in enumerate(held.layers)}
        filler = in_order(count, slots)
        return json_rows(KEY, [rows.get(layer, filler) for layer in range(model.hidden)])


def json_rows(key: str, rows: list[tuple[int, ...]]) -> bytes:
    """JSON of one key and a row a line."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return f"{{{json.dumps(key)}: [\n{lines}\n]}}\n".encode()
