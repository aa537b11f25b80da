"""vLLM 0.33.0 with the plug-in of this package, which puts the plan's map in place (docs/engines.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from placement.engines.launch.base import NodeLauncher, kv_option, refuse_instances, stage_text
from placement.engines.launch.site import Instance, Site, map_of
from placement.engines.launch.switches import Option, Switches, Variable, needed, switches_of
from specs.blocks.recurrent import Recurrent
from specs.speculation import Speculation

_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
#: Steps of EPLB with the map held: the first rebalance, which puts the map in place, comes after a quarter.
_STEP_INTERVAL = 3000


def degrees(switches: Switches, site: Instance, node: int) -> Iterator[Option]:
    """The degrees and machines of an instance, as vLLM and its forks take them."""
    option, split = switches.option, site.split
    yield option("--tensor-parallel-size", split.tp, reason="GPUs of an attention rank")
    if split.pp > 1:
        yield option("--pipeline-parallel-size", split.pp, reason="stages")
    if site.sharers > 1:
        yield option("--prefill-context-parallel-size", site.sharers, reason="attention ranks that share a prompt")
    if split.dp > site.sharers:
        local = max(site.node_gpus // (split.tp * split.pp * site.sharers), 1)
        yield option("--data-parallel-size", split.dp // site.sharers, reason="attention ranks of an instance")
        yield option("--data-parallel-size-local", local, reason="those of this OS node")
    if site.nodes > 1:
        yield option("--nnodes", site.nodes, reason="OS nodes of the instance")
        yield option("--node-rank", node, reason="this node")
        yield option("--master-addr", "$HEAD_ADDRESS", reason="where its nodes meet")
        yield option("--master-port", "$RENDEZVOUS_PORT", reason="where its nodes meet")
        if split.dp > site.sharers:
            yield option("--data-parallel-address", "$HEAD_ADDRESS", reason="where attention ranks meet")
            yield option("--data-parallel-rpc-port", "$RANKS_PORT", reason="where attention ranks meet")
    if split.ep > 1:
        yield option("--enable-expert-parallel", reason=f"experts are spread over {split.ep} GPUs, TP x DP")


def limits(switches: Switches, site: Instance, node: int) -> Iterator[Option]:
    """Memory, lengths, batch and address, as vLLM and its forks take them."""
    option = switches.option
    yield option("--gpu-memory-utilization", site.memory_share, reason="HBM less what was planned to be left free")
    yield option("--max-model-len", site.context, reason="input and output of a request, as planned")
    if site.serves != "prefill":  # whose passes are bound by their tokens
        yield option("--max-num-seqs", site.split.batch, reason="sequences of an attention rank, as planned")
    tokens = site.pass_tokens * site.sharers
    yield option("--max-num-batched-tokens", tokens, reason="tokens of an attention rank in a pass")
    yield from kv_option(switches, site, {"fp8": "fp8"})
    if site.workload.prefix_hit:
        yield option("--enable-prefix-caching", reason="the plan counts on cached prefixes")
    if not site.scenario.engine.cuda_graphs:
        yield option("--enforce-eager", reason="the plan runs without CUDA graphs")
    if (drafts := site.drafts) is not None:
        told = json.dumps(_drafts(drafts))
        yield option("--speculative-config", told, reason="what drafts tokens ahead, and how many in a step")
    if node:
        yield option("--headless", reason="node 0 serves")
    else:
        yield option("--host", "0.0.0.0", reason="other machines may ask")
        yield option("--port", "$PORT", reason="where it serves")


class VllmLauncher(NodeLauncher):
    """`vllm serve`."""

    name = "vllm"
    switches = switches_of("vllm")
    accelerator = "nvidia.com/gpu"
    devices = "CUDA_VISIBLE_DEVICES"
    model_word = True
    no_prefix_cache = "--no-enable-prefix-caching"

    def options(self, site: Site, node: int) -> Iterator[Option]:
        """See Launcher."""
        option, split = self.switches.option, site.split
        yield from degrees(self.switches, site, node)
        if split.ep > 1:
            yield option("--all2all-backend", site.scenario.engine.backend, reason="the all-to-all backend of the plan")
        order = own_order(site)
        if site.map_file and order:
            yield option("--expert-placement-strategy", order, reason="this is the plan's map: no EPLB is needed")
        elif site.map_file:
            eplb = {"num_redundant_experts": site.redundant, "step_interval": _STEP_INTERVAL, "use_async": False}
            yield option(
                "--enable-eplb", reason="its first rebalance puts the plan's map in place, through the plug-in"
            )
            yield option("--eplb-config", json.dumps(eplb), reason="slots beyond one copy of each expert; steps")
        yield from limits(self.switches, site, node)
        if site.scenario.overlap_in_use == "two_batch":
            yield option("--enable-dbo", reason="half-batches hide each other's messages, as planned")
        if site.disaggregated:
            transfer = {"kv_connector": _connector(site), "kv_role": _ROLES[site.role.role]}
            yield option("--kv-transfer-config", json.dumps(transfer), reason="this role serves one phase")

    def variables(self, site: Site, node: int) -> Iterator[Variable]:
        """See Launcher."""
        variable = self.switches.variable
        if site.split.pp > 1:
            yield variable("VLLM_PP_LAYER_PARTITION", stage_text(site), reason="layers of each stage, as planned")
        if site.map_file and not own_order(site):
            yield variable("PLACEMENT_EPLB", "hold", reason="the plug-in keeps the plan's map at every rebalance")
            yield variable("PLACEMENT_PLAN", "$HERE/plan.json", reason="where the plug-in finds the map")
        if site.disaggregated:
            yield variable(
                "VLLM_NIXL_SIDE_CHANNEL_HOST", "${NODE_ADDRESS:-$HEAD_ADDRESS}",
                reason="the address under which other instances fetch KV caches from this node",
            )  # fmt: skip
            yield variable("VLLM_NIXL_SIDE_CHANNEL_PORT", "$TRANSFER_PORT", reason="where they ask, rank after rank")
        if site.spans_fast_nodes and site.scenario.engine.backend == "deepep_low_latency":
            yield variable(
                "VLLM_DEEPEP_LOW_LATENCY_USE_MNNVL", 1,
                reason="NVLink reaches the other OS nodes of the rack; DeepEP uses it between them only if told",
            )  # fmt: skip

    def files(self, site: Site) -> dict[str, str]:
        """See Launcher."""
        return {}

    def router(self, sites: Sequence[Site]) -> str:
        """The proxy of vLLM's source (tests/v1/kv_connector/nixl_integration/toy_proxy_server.py): no wheel has one."""
        if not sites[0].disaggregated:
            return ""
        asked = needed("PROXY", "it is the path of toy_proxy_server.py, which README.md names")
        return (
            f"{asked}\n"
            + """prefill=() prefill_ports=() decode=() decode_ports=()
while read -r address port _; do prefill+=("$address") prefill_ports+=("$port"); done < <(servers prefill)
while read -r address port _; do decode+=("$address") decode_ports+=("$port"); done < <(servers decode)
exec python3 "$PROXY" --host 0.0.0.0 --port "$ROUTER_PORT" \\
  --prefiller-hosts "${prefill[@]}" --prefiller-ports "${prefill_ports[@]}" \\
  --decoder-hosts "${decode[@]}" --decoder-ports "${decode_ports[@]}"
"""
        )

    def notes(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        split = site.split
        if not site.map_file:
            yield "Without expert parallelism (EP 1) no map is written: vLLM has nothing to place."
        elif own_order(site):
            yield "The plan's map is an order that stock vLLM has: no plug-in and no EPLB are needed."
        else:
            yield (
                f"vLLM {self.switches.version} loads no map by itself. Install this package beside it (`pip install "
                "placement`): its plug-in puts the map of `plan.json` in place at the first rebalance, about "
                f"{_STEP_INTERVAL // 4} steps after the start. Until then, and without the plug-in, experts lie in "
                f"order (`linear`){_in_order(site)}."
            )
            yield f"`{site.map_file}` is in a proposed format; no release loads it."
            yield "vLLM draws the copy that serves a token evenly (a hash of its index), whatever node it is on."
        if split.pp > 1 and split.dp > 1:
            yield (
                "vLLM puts all stages of an attention rank side by side, so that the GPUs of a stage are spread over "
                f"{split.pp} times as many nodes as planned; stages were planned to fill nodes one after the other."
            )
        if site.role.role == "prefill":
            yield (
                "`router.sh` starts a proxy that sends each request to an instance of each role, in turn. vLLM's wheel "
                "has none: `PROXY` is `tests/v1/kv_connector/nixl_integration/toy_proxy_server.py` of vLLM's source of "
                f"this version ({self.switches.version}), which its own tests use; it needs httpx, fastapi and uvicorn."
            )
            if site.prefill_stages > 1:
                yield (
                    "Prefill has several stages: vLLM's NixlConnector, which reads KV caches, finds those of one stage "
                    "only. NixlPushConnector, which writes them, finds all: both roles have to run it."
                )

    def taken(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if site.map_file and not own_order(site):
            yield "Lines of the logger `vllm.placement` name the plan that is served, or say why vLLM's own map is."
            yield f"EPLB says `Rearranging experts` every {_STEP_INTERVAL} steps; after the first time nothing moves."


def _drafts(speculation: Speculation) -> dict[str, object]:
    """vLLM's words for what drafts (config/speculative.py, SpeculativeConfig)."""
    own = {"model": "$DRAFT"} if speculation.parameters_b is not None else {}
    return {"method": speculation.method, **own, "num_speculative_tokens": speculation.draft}


def _connector(site: Site) -> str:
    """What carries KV caches (distributed/kv_transfer/kv_connector/v1/nixl/base_worker.py, where it reads `pp_size`).

    Raises:
        InputError: No connector does.
    """
    if site.role.role == "decode" and site.split.pp > 1:
        problem = f"have {site.split.pp} stages, and its NIXL connectors bring KV caches to instances of one stage"
        raise refuse_instances(site, "vllm", problem, "plan it with --decode-pp 1")
    if site.prefill_stages == 1:
        return "NixlConnector"
    kind = next((name for name, mixer in site.scenario.model.mixers.items() if isinstance(mixer, Recurrent)), None)
    if kind is not None:
        problem = f"have {site.prefill_stages} stages, and NixlPushConnector carries no state of {kind} layers then"
        raise refuse_instances(site, "vllm", problem, "plan it with --prefill-pp 1")
    return "NixlPushConnector"


def _in_order(site: Site) -> str:
    """What the plan says of experts in order, beside its own placement."""
    own, linear = site.role.own, site.role.strategy("linear")
    if own is None or linear is None:
        return ""
    return f": predicted {linear.tokens_per_s:,.0f} tokens/s instead of {own.tokens_per_s:,.0f}"


def own_order(site: Site) -> str:
    """Which order of stock vLLM the role's map is: "linear" or "round_robin"; "" for none."""
    held = map_of(site.role, site.scenario)
    if site.redundant:
        return ""
    gpus, experts = held.gpus, site.scenario.model.moe.experts
    width = experts // gpus
    orders = {
        "linear": [set(range(gpu * width, (gpu + 1) * width)) for gpu in range(gpus)],
        "round_robin": [set(range(gpu, experts, gpus)) for gpu in range(gpus)],
    }
    return next(
        (name for name, order in orders.items() if all([set(on) for on in row] == order for row in held.rows)), ""
    )
