"""SGLang 0.5.23 (docs/engines.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from placement.engines.launch.base import NodeLauncher, kv_option, stage_text
from placement.engines.launch.site import Site
from placement.engines.launch.switches import Option, Variable, switches_of

#: SGLang's names of how a copy is picked; plans of before its own rules were told hold the first two.
_DISPATCH = {"nearest": "static", "even": "dynamic", "sglang_static": "static", "sglang_dynamic": "dynamic"}
#: SGLang's names of what drafts (arg_groups/fields/spec.py, speculative_algorithm).
_DRAFTS = {"mtp": "NEXTN", "eagle3": "EAGLE3", "draft_model": "STANDALONE", "ngram": "NGRAM"}
_MODES = {"prefill": "normal", "decode": "low_latency"}


class SglangLauncher(NodeLauncher):
    """`python3 -m sglang.launch_server`; its --tp-size is TP x DP."""

    name = "sglang"
    switches = switches_of("sglang")
    accelerator = "nvidia.com/gpu"
    devices = "CUDA_VISIBLE_DEVICES"
    model_word = False
    no_prefix_cache = "--disable-radix-cache"

    def options(self, site: Site, node: int) -> Iterator[Option]:
        """See Launcher."""
        option, split, backend = self.switches.option, site.split, site.scenario.engine.backend
        yield option("--model-path", "$MODEL", reason="the model")
        yield option("--tp-size", site.stage_gpus, reason="GPUs of a stage: TP x DP")
        ranks = split.dp // site.sharers
        if ranks > 1:
            yield option("--attn-dp-size", ranks, reason=f"attention ranks, each of TP {split.tp}")
        if site.sharers > 1:
            yield option("--attn-cp-size", site.sharers, reason="attention ranks that share a prompt, as planned")
            yield option("--enable-prefill-cp", reason="they share it in prefill")
            yield option("--cp-strategy", "zigzag", reason="both ends of a prompt to each, as planned")
        if split.pp > 1:
            yield option("--pp-size", split.pp, reason="stages")
        yield option("--ep-size", split.ep, reason="GPUs that the experts of a layer are spread over")
        if site.nodes > 1:
            yield option("--nnodes", site.nodes, reason="OS nodes of the instance")
            yield option("--node-rank", node, reason="this node")
            yield option("--dist-init-addr", "$HEAD_ADDRESS:$RENDEZVOUS_PORT", reason="where its nodes meet")
        if split.ep > 1:
            yield option("--moe-a2a-backend", backend, reason="the all-to-all backend of the plan")
            if backend == "deepep":
                mode = _MODES.get(site.role.role, "auto")
                yield option("--deepep-mode", mode, reason="kernels of the phases that this role runs")
            if backend == "deepep_v2" and site.nodes > 1:
                yield option("--deepep-v2-mode", "hybrid", reason="its default runs inside one node only")
        if site.map_file:
            yield option("--ep-num-redundant-experts", site.redundant, reason="slots beyond one copy of each expert")
            yield option("--init-expert-location", site.map_path, reason="the plan's expert map; its suffix matters")
            yield option(
                "--ep-dispatch-algorithm", _DISPATCH[site.scenario.dispatch_served],
                reason=f"the copy that serves a token: {site.role.dispatch} in the plan",
            )  # fmt: skip
        yield option("--mem-fraction-static", site.memory_share, reason="HBM less what was planned to be left free")
        yield option("--context-length", site.context, reason="input and output of a request, as planned")
        if site.role.role != "prefill":  # whose passes are bound by their tokens
            told = f"{split.batch} for each attention rank, as planned"
            yield option("--max-running-requests", split.batch * split.dp, reason=told)
        yield option(
            "--chunked-prefill-size", site.pass_tokens * split.dp,
            reason=f"{site.pass_tokens} for each attention rank: SGLang divides it among them",
        )  # fmt: skip
        yield from kv_option(self.switches, site, {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"})
        if not site.scenario.engine.cuda_graphs:
            yield option("--disable-decode-cuda-graph", reason="the plan runs without CUDA graphs")
        speculation = site.drafts
        if speculation is not None:
            yield option("--speculative-algorithm", _DRAFTS[speculation.method], reason="what drafts tokens ahead")
            if speculation.parameters_b is not None:
                yield option("--speculative-draft-model-path", "$DRAFT", reason="the draft")
            if speculation.method != "ngram":
                yield option("--speculative-num-steps", speculation.draft, reason="tokens drafted in a step")
                yield option("--speculative-eagle-topk", 1, reason="one draft a sequence, as planned")
            verified = site.workload.step_tokens
            yield option("--speculative-num-draft-tokens", verified, reason="tokens verified in a step: drafts and one")
        if site.scenario.overlap_in_use == "two_batch":
            yield option("--enable-two-batch-overlap", reason="half-batches hide each other's messages, as planned")
        if site.disaggregated:
            yield option("--disaggregation-mode", site.role.role, reason="this role serves one phase")
            yield option("--disaggregation-transfer-backend", "mooncake", reason="carries KV caches; the default")
            if site.role.role == "prefill":
                yield option("--disaggregation-bootstrap-port", "$TRANSFER_PORT", reason="where decode instances ask")
        yield option("--host", "0.0.0.0", reason="other machines may ask")
        yield option("--port", "$PORT", reason="where it serves")

    def variables(self, site: Site, node: int) -> Iterator[Variable]:
        """See Launcher."""
        variable, backend = self.switches.variable, site.scenario.engine.in_use
        if site.split.pp > 1:
            yield variable("SGLANG_PP_LAYER_PARTITION", stage_text(site), reason="layers of each stage, as planned")
        if backend.decode_tokens is not None and site.split.ep > 1 and site.role.role != "prefill":
            tokens = max(site.dispatch_buffer, 1)
            if backend.tokens_switch.startswith("SGLANG_") and tokens <= backend.decode_tokens:
                yield variable(
                    backend.tokens_switch, backend.decode_tokens,
                    reason=f"room for the {tokens} tokens of a GPU in a decode step; buffers are planned for it",
                )  # fmt: skip

    def files(self, site: Site) -> dict[str, str]:
        """See Launcher."""
        return {}

    def router(self, sites: Sequence[Site]) -> str:
        """sglang-router, started as SGLang's own tests start it (test/ascend/e2e/test_npu_multi_node_utils.py)."""
        if sites[0].disaggregated:
            body = """args=(--pd-disaggregation)
while read -r address port transfer; do args+=(--prefill "http://$address:$port" "$transfer"); done < <(servers prefill)
while read -r address port _; do args+=(--decode "http://$address:$port"); done < <(servers decode)
"""
        else:
            body = """args=(--worker-urls)
while read -r address port _; do args+=("http://$address:$port"); done < <(servers aggregated)
"""
        return body + 'exec python3 -m sglang_router.launch_router "${args[@]}" --host 0.0.0.0 --port "$ROUTER_PORT"\n'

    def notes(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if site.map_file:
            yield (
                "The map has the one key `physical_to_logical_map`. SGLang crashes on any other key beside it, and "
                "takes a path of any suffix but `.json` and `.pt` for JSON text."
            )
            yield "EPLB is off: `--enable-eplb` is not given, so the map stays as it is."
            if site.role.dispatch != site.scenario.dispatch_served:
                yield (
                    f"The plan was made for {site.role.dispatch} dispatch, which SGLang does not have; it serves by "
                    f"`{_DISPATCH[site.scenario.dispatch_served]}`."
                )
            elif site.role.dispatch == "nearest" and (
                site.scenario.cluster.os_node_gpus < site.scenario.cluster.gpus_per_node
            ):
                yield (
                    "SGLang's nearest copy is one of the same OS node; the plan counts one of the same fast-link "
                    f"domain ({site.scenario.cluster.gpus_per_node} GPUs)."
                )
        else:
            yield "Without expert parallelism (EP 1) no map is written: SGLang has nothing to place."
        if site.role.role == "prefill":
            yield (
                "`router.sh` starts sglang-router (`pip install sglang-router`) in its prefill-decode mode: it sends "
                "each request to an instance of each role."
            )

    def taken(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if site.map_file:
            yield (
                "The log of every rank says `init_expert_location from init_by_mapping using "
                "ServerArgs.init_expert_location`."
            )
            yield "The log's `server_args` show `init_expert_location` with this path, and `enable_eplb=False`."
