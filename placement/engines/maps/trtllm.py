"""TensorRT-LLM 1.2: `moe_config.load_balancer`, a YAML file of MoeLoadBalancerConfig (llmapi/llm_args.py).

It refuses other fields. Layers have the model's own indices, from the first MoE layer on; those of a next-token module
follow the last hidden layer, and a layer without a row is a KeyError.
"""

from __future__ import annotations

from placement.engines.content import Content, only_keys, whole, whole_list
from placement.engines.expert_map import ExpertMap, ModelLayers, in_order
from placement.engines.maps.base import Extras, ReadMap
from specs.documents import shown
from specs.fields import MAX_LAYERS

SLOTS, ROWS, UPDATES = "num_slots", "initial_global_assignments", "layer_updates_per_iter"
_MOST_SLOTS = 2**20


class TrtllmMap:
    """The static load balancer of TensorRT-LLM."""

    name = "trtllm"
    file = "moe_load_balancer.yaml"
    loaded_by = "TensorRT-LLM 1.2, moe_config.load_balancer"
    stock = True
    uneven = False

    def recognizes(self, content: Content) -> bool:
        """By its assignments."""
        data = content.mapping()  # a line for vLLM has the same two names
        return content.kind in ("yaml", "json") and {ROWS, SLOTS} <= set(data) and "record_type" not in data

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        data = content.mapping()
        only_keys(content, data, (SLOTS, ROWS, UPDATES), "", "TensorRT-LLM refuses any other field")
        slots = whole(content, data.get(SLOTS), SLOTS, _MOST_SLOTS)
        updates = whole(content, data.get(UPDATES, 0), UPDATES, MAX_LAYERS)
        given = data[ROWS]
        if not isinstance(given, dict) or not given:
            raise content.refuse(ROWS, f"is {shown(given)}", "write 'layer: [experts]' lines")
        rows: dict[int, tuple[int, ...]] = {}
        for key, row in given.items():
            layer = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 6 else key
            if type(layer) is not int or not 0 <= layer < 2 * MAX_LAYERS or layer in rows:
                raise content.refuse(ROWS, f"has the layer {shown(key)}", "number layers as the model does, each once")
            rows[layer] = whole_list(content, row, f"{ROWS}[{layer}]")
            if len(rows[layer]) != slots:
                raise content.refuse(f"{ROWS}[{layer}]", f"has {len(row)} slots, not num_slots {slots}", "mend the row")
        missing = sorted(set(model.moe) - set(rows))
        if missing:
            raise content.refuse(
                ROWS, f"lacks layer {missing[0]}, the first of {len(missing)} MoE layers without a row",
                "number layers as the model does, dense ones counted",
            )  # fmt: skip
        notes = []
        dense = [layer for layer in rows if layer < model.hidden and layer not in model.moe]
        beyond = [layer for layer in rows if layer >= model.hidden]
        if dense:
            raise content.refuse(ROWS, f"has layer {dense[0]}, which is dense", "use a map of this model")
        if beyond:
            notes.append(f"{len(beyond)} rows of a next-token module (layers from {min(beyond)}) are left out")
        if updates:
            notes.append(f"{UPDATES} is {updates}: TensorRT-LLM moves experts of its own accord, from this map on")
        return ReadMap(
            ExpertMap.from_flat(model.moe, [rows[layer] for layer in model.moe], gpus, content.source), tuple(notes)
        )

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        count = model.one_size("trtllm")
        held = experts.filled(None, "trtllm")
        slots = len(held.flat(0))
        rows = [(layer, held.flat(i)) for i, layer in enumerate(held.layers)]
        rows += [(model.hidden + i, in_order(count, slots)) for i in range(extras.next_token_layers)]
        lines = [f"  {layer}: [{', '.join(map(str, row))}]" for layer, row in rows]
        return "\n".join([f"{SLOTS}: {slots}", f"{ROWS}:", *lines, f"{UPDATES}: 0", ""]).encode()
