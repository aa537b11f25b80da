"""vLLM: formats that have been proposed, and one of a fork. Stock vLLM 0.33.0 loads no map: there its plug-in does.

All have a row for each MoE layer, none for dense ones; GPU = slot // (slots / EP).
"""

from __future__ import annotations

import json

from placement.engines.content import Content, only_keys, whole, whole_list, whole_rows
from placement.engines.expert_map import ExpertMap, ModelLayers
from placement.engines.maps.base import Extras, ReadMap, moe_rows, same_length
from placement.errors import ParameterError
from specs.documents import shown

RECORD = "eplb_initial_mapping"
FORK = "vllm_offline_eplb_physical_to_logical_by_model"
_KEY, _ROWS = "physical_to_logical_map", "initial_global_assignments"
_MOST_SLOTS = 2**20


def _rows(experts: ExpertMap, model: ModelLayers) -> list[tuple[int, ...]]:
    model.one_size("vllm")
    held = experts.filled(None, "vllm")
    return [held.flat(i) for i in range(len(held.layers))]


def _read(content: Content, rows: tuple[tuple[int, ...], ...], model: ModelLayers, gpus: int, field: str) -> ReadMap:
    same_length(content, rows, field)
    moe_rows(content, rows, model, field)
    return ReadMap(ExpertMap.from_flat(model.moe, rows, gpus, content.source))


class VllmRows:
    """`[layers][slots]`, for the proposed option `initial_expert_map_path` (also `expert_map_path`)."""

    name = "vllm"
    file = "expert_map.json"
    loaded_by = "no release: proposed as initial_expert_map_path; vLLM 0.33.0 takes plan.json through the plug-in"
    stock = False
    uneven = False

    def recognizes(self, content: Content) -> bool:
        """By being a list of lists."""
        return content.kind == "json" and isinstance(content.data, list)

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        return _read(content, whole_rows(content, content.data, "rows"), model, gpus, "rows")

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in _rows(experts, model))
        return f"[\n{lines}\n]\n".encode()


class VllmRecord:
    """A line of JSON, `record_type: eplb_initial_mapping`, for the proposed option `initial_mapping_path`."""

    name = "vllm-record"
    file = "expert_map.jsonl"
    loaded_by = "no release: proposed as eplb_config.initial_mapping_path"
    stock = False
    uneven = False

    def recognizes(self, content: Content) -> bool:
        """By the record's type."""
        found = content.data if content.kind == "lines" else [content.data]
        return content.kind in ("json", "lines") and any(
            isinstance(record, dict) and record.get("record_type") == RECORD for record in found
        )

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        found = content.data if content.kind == "lines" else [content.data]
        records = [record for record in found if isinstance(record, dict) and record.get("record_type") == RECORD]
        if len(records) != 1:
            raise content.refuse("record_type", f"{RECORD} stands {len(records)} times", "keep one")
        record = records[0]
        whole(content, record.get("version"), "version", 1)
        slots = whole(content, record.get("num_slots"), "num_slots", _MOST_SLOTS)
        redundant = whole(content, record.get("num_redundant_experts"), "num_redundant_experts", _MOST_SLOTS)
        given = record.get(_ROWS)
        if not isinstance(given, dict) or set(given) != {str(i) for i in range(len(given))} or not given:
            raise content.refuse(_ROWS, f"is {shown(given)}", 'number MoE layers "0", "1", ... without gaps')
        rows = tuple(whole_list(content, given[str(i)], f"{_ROWS}[{i}]") for i in range(len(given)))
        experts = model.one_size("vllm")
        if len(rows[0]) != slots or slots != experts + redundant:
            problem = f"is {slots}, for {len(rows[0])} slots of {experts} experts and {redundant} redundant ones"
            raise content.refuse("num_slots", problem, "make them agree")
        notes = (f"{len(found) - 1} records of other types are left out",) if len(found) > 1 else ()
        return ReadMap(_read(content, rows, model, gpus, _ROWS).experts, notes)

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        rows = _rows(experts, model)
        record = {
            "record_type": RECORD, "version": 1, "num_redundant_experts": len(rows[0]) - model.experts[0],
            "num_slots": len(rows[0]), _ROWS: {str(i): row for i, row in enumerate(rows)},
        }  # fmt: skip
        return (json.dumps(record) + "\n").encode()


class VllmFork:
    """Maps by the model's class, version 2, of a fork for Hygon's accelerators."""

    name = "vllm-hygon"
    file = "expert_map_by_model.json"
    loaded_by = "a fork of vLLM for Hygon's accelerators, format version 2"
    stock = False
    uneven = False

    def recognizes(self, content: Content) -> bool:
        """By its format."""
        return content.kind == "json" and content.mapping().get("format") == FORK

    def read(self, content: Content, model: ModelLayers, gpus: int) -> ReadMap:
        """See MapFormat."""
        data = content.mapping()
        if data.get("version") != 2:
            raise content.refuse("version", f"is {shown(data.get('version'))}", "use a file of version 2")
        only_keys(content, data, ("version", "format", "model_maps"), "", "version 2 has no other field")
        maps = data.get("model_maps")
        if not isinstance(maps, dict) or not all(isinstance(one, dict) and _KEY in one for one in maps.values()):
            raise content.refuse("model_maps", f"is {shown(maps)}", f"write the model's class: {{{_KEY}: [...]}}")
        # A model and its next-token module have a map each; the module's has one row.
        fit = [name for name, one in maps.items() if isinstance(one[_KEY], list) and len(one[_KEY]) == len(model.moe)]
        if len(fit) != 1:
            raise content.refuse(
                "model_maps", f"holds {len(fit)} maps of {len(model.moe)} MoE layers", "use a file of this model"
            )
        field = f"model_maps.{shown(fit[0])}"
        only_keys(content, maps[fit[0]], (_KEY,), field, "it is not known here")
        read = _read(content, whole_rows(content, maps[fit[0]][_KEY], field), model, gpus, field)
        others = [shown(name) for name in maps if name != fit[0]]
        return ReadMap(read.experts, (f"maps of {', '.join(others)} are left out",) if others else ())

    def write(self, experts: ExpertMap, model: ModelLayers, extras: Extras) -> bytes:
        """See MapFormat."""
        if not extras.architecture:
            raise ParameterError(
                "architecture", "the file names the model's class", "give it, as config.json has it in architectures"
            )
        held = {extras.architecture: {_KEY: _rows(experts, model)}}
        return (json.dumps({"version": 2, "format": FORK, "model_maps": held}) + "\n").encode()
