"""vllm-ascend before 0.25.1, the last that loads a static map (docs/engines.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from placement.engines.launch.base import NodeLauncher, stage_text
from placement.engines.launch.site import Site
from placement.engines.launch.switches import Option, Variable, switches_of
from placement.engines.launch.vllm import degrees, limits
from placement.errors import InputError


class AscendLauncher(NodeLauncher):
    """`vllm serve` on Ascend."""

    name = "vllm-ascend"
    switches = switches_of("vllm-ascend")
    accelerator = "huawei.com/Ascend910"
    devices = "ASCEND_RT_VISIBLE_DEVICES"
    model_word = True
    no_prefix_cache = "--no-enable-prefix-caching"

    def options(self, site: Site, node: int) -> Iterator[Option]:
        """See Launcher."""
        if site.disaggregated:
            raise InputError(
                "vllm-ascend", "role", "has prefill and decode apart, for which no launch is known here",
                "export an aggregated plan, or the maps with --to omni",
            )  # fmt: skip
        yield from degrees(self.switches, site, node)
        yield from limits(self.switches, site, node)
        if site.map_file:
            path = json.dumps({"eplb_config": {"expert_map_path": site.map_path}})
            yield self.switches.option("--additional-config", path, reason="the plan's expert map, served as it is")

    def variables(self, site: Site, node: int) -> Iterator[Variable]:
        """See Launcher."""
        if site.split.pp > 1:
            reason = "layers of each stage, as planned"
            yield self.switches.variable("VLLM_PP_LAYER_PARTITION", stage_text(site), reason=reason)

    def files(self, site: Site) -> dict[str, str]:
        """See Launcher."""
        return {}

    def router(self, sites: Sequence[Site]) -> str:
        """See Launcher."""
        return ""

    def notes(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if site.map_file:
            yield "vllm-ascend 0.25.1 and later ignore `expert_map_path`: pin an earlier release."
            yield "`dynamic_eplb` stays unset, so the map stays as it is."
        else:
            yield "Without expert parallelism (EP 1) no map is written: there is nothing to place."
        yield "The plan prices vLLM's messages; Ascend's own kernels were not measured here."

    def taken(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if site.map_file:
            yield "The log prints the additional config with `expert_map_path`; a map of other sizes stops the start."
