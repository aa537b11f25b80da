"""TensorRT-LLM 1.2 (docs/engines.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from placement.engines.launch.base import start_nodes
from placement.engines.launch.site import Site
from placement.engines.launch.switches import Option, Variable, switches_of
from specs.documents import yaml_text
from specs.speculation import Speculation

CONFIG = "config.yaml"
#: Architectures whose maps are loaded (modules/fused_moe/moe_load_balancer.py, moe_model_arch_list).
ARCHITECTURES = (
    "DeepseekV3ForCausalLM",
    "MixtralForCausalLM",
    "Llama4ForConditionalGeneration",
    "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM",
)
#: Backends of the catalog by the names of TRTLLM_FORCE_COMM_METHOD (communication/communication_factory.py).
_METHODS = {
    "nvlink_one_sided": "NVLINK_ONE_SIDED",
    "nvlink_two_sided": "NVLINK_TWO_SIDED",
    "deepep": "DEEPEP",
    "deepep_low_latency": "DEEPEPLOWLATENCY",
    "allgather": "ALLGATHER",
}

#: Fields of what drafts (llmapi/llm_args.py, DecodingBaseConfig and its kinds).
_DRAFTS = {"eagle3": "Eagle", "draft_model": "Draft_Target", "ngram": "NGram"}


def _drafts(told: Speculation) -> dict[str, Any]:
    if told.method == "mtp":
        return {"decoding_type": "MTP", "num_nextn_predict_layers": told.draft}
    own = {} if told.parameters_b is None else {"speculative_model": "@DRAFT@"}
    return {"decoding_type": _DRAFTS[told.method], "max_draft_len": told.draft, **own}


class TrtllmLauncher:
    """`trtllm-serve`; its --tp_size is TP x DP."""

    name = "trtllm"
    switches = switches_of("trtllm")
    accelerator = "nvidia.com/gpu"
    devices = "CUDA_VISIBLE_DEVICES"
    model_word = True
    no_prefix_cache = "kv_cache_config.enable_block_reuse: false"

    def program(self, site: Site) -> tuple[str, ...]:
        """One process starts the others of its OS node; over several OS nodes MPI starts all."""
        return (*(("trtllm-llmapi-launch",) if site.nodes > 1 else ()), *self.switches.program)

    def scripts(self, site: Site) -> int:
        """Every task of MPI runs the same command."""
        return 1

    def start(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if site.nodes == 1:
            yield from start_nodes(site)
        else:
            yield f"srun --mpi=pmix -N {site.nodes} --ntasks-per-node={site.node_gpus} bash {site.folder}/node-0.sh"

    def options(self, site: Site, node: int) -> Iterator[Option]:
        """See Launcher."""
        option, split = self.switches.option, site.split
        yield option("--backend", "pytorch", reason="the backend that has a load balancer")
        yield option("--tp_size", site.stage_gpus, reason="GPUs of a stage: TP x DP")
        yield option("--ep_size", split.ep, reason="GPUs that the experts of a layer are spread over")
        if split.pp > 1:
            yield option("--pp_size", split.pp, reason="stages")
        if site.nodes > 1:
            yield option("--gpus_per_node", site.node_gpus, reason="GPUs of the instance on each OS node")
        if site.role.role != "prefill":  # whose passes are bound by their tokens
            yield option("--max_batch_size", split.batch, reason="sequences of an attention rank, as planned")
        yield option("--max_num_tokens", site.pass_tokens, reason="tokens of an attention rank in a pass")
        yield option("--max_seq_len", site.context, reason="input and output of a request, as planned")
        yield option(
            "--kv_cache_free_gpu_memory_fraction", site.memory_share,
            reason="of the HBM that weights leave; the plan takes it of all HBM",
        )  # fmt: skip
        yield option("--config", f"$HERE/{CONFIG}", reason="attention ranks, expert map, stages")
        yield option("--host", "0.0.0.0", reason="other machines may ask")
        yield option("--port", "$PORT", reason="where it serves")

    def variables(self, site: Site, node: int) -> Iterator[Variable]:
        """See Launcher."""
        backend = site.scenario.engine.backend
        if backend in _METHODS and site.split.ep > 1:
            reason = "the all-to-all backend of the plan, whatever would be chosen"
            yield self.switches.variable("TRTLLM_FORCE_COMM_METHOD", _METHODS[backend], reason=reason)

    def files(self, site: Site) -> dict[str, str]:
        """The config that --config names; @HERE@ stands for its folder, and is filled in by the launch script."""
        config: dict[str, Any] = {"enable_attention_dp": site.split.dp > 1}
        if site.map_file and site.split.dp > 1:
            config["moe_config"] = {"load_balancer": f"@HERE@/{site.map_file}"}
        if site.split.pp > 1:
            config["pp_partition"] = list(site.stage_layers)
        stored = site.scenario.model.types.kv_cache
        cache: dict[str, Any] = {"dtype": stored} if stored in ("fp8", "nvfp4") else {}
        if site.workload.prefix_hit:
            cache["enable_block_reuse"] = True
        if cache:
            config["kv_cache_config"] = cache
        if site.workload.chunk_tokens is not None:
            config["enable_chunked_prefill"] = True
        if not site.scenario.engine.cuda_graphs:
            config["cuda_graph_config"] = None
        if site.drafts is not None:
            config["speculative_config"] = _drafts(site.drafts)
        if site.disaggregated:
            config["cache_transceiver_config"] = {"backend": "DEFAULT"}
        if site.role.role == "prefill":
            # Context servers don't have it yet (TensorRT-LLM's docs: disaggregated serving, trtllm-serve).
            config["disable_overlap_scheduler"] = True
        return {CONFIG: yaml_text(config)}

    def router(self, sites: Sequence[Site]) -> str:
        """`trtllm-serve disaggregated` with the config that TensorRT-LLM's docs of disaggregated serving show."""
        if not sites[0].disaggregated:
            return ""
        return """CONFIG="$(mktemp)"
urls() {
  echo "  num_instances: $(servers "$1" | wc -l)"
  echo "  urls:"
  servers "$1" | while read -r address port _; do echo "  - \\"$address:$port\\""; done
}
{
  echo "hostname: 0.0.0.0"
  echo "port: $ROUTER_PORT"
  echo "backend: pytorch"
  echo "context_servers:"
  urls prefill
  echo "generation_servers:"
  urls decode
} > "$CONFIG"
exec trtllm-serve disaggregated -c "$CONFIG"
"""

    def notes(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if not site.map_file:
            yield "Without expert parallelism (EP 1) no map is written: TensorRT-LLM would ignore it in silence."
        elif site.split.dp == 1:
            yield (
                "Without attention data parallelism (DP 1) TensorRT-LLM ignores a load balancer in silence. The map is "
                f"written as `{site.map_file}`, but the config does not name it: experts lie in order."
            )
        else:
            yield (
                "TensorRT-LLM ignores the load balancer in silence unless EP is above 1, attention data parallelism is "
                "on (both are here) and the first of `architectures` in the model's config.json is listed: "
                f"{', '.join(ARCHITECTURES)}, and in newer releases others."
            )
            if site.architecture and site.architecture not in ARCHITECTURES:
                yield (
                    f"{site.architecture} is not listed in TensorRT-LLM {self.switches.version}: it ignores the map in "
                    "silence, unless your release lists it in `moe_model_arch_list`."
                )
            yield "`layer_updates_per_iter: 0` keeps the map as it is."
            yield (
                "A model with a next-token module (speculative decoding) asks for rows of its layers, too: export with "
                "--next-token-layers 1, or the start ends with a KeyError."
            )
        if site.nodes > 1:
            yield (
                f"Over several OS nodes it starts under MPI (here Slurm's), one task a GPU: {site.node_gpus} on each "
                f"of {site.nodes}. Kubernetes and Docker Compose start no MPI: no file of theirs is written."
            )
        if site.role.role == "prefill":
            yield (
                "`router.sh` starts `trtllm-serve disaggregated`, which sends each request to an instance of each role."
            )

    def taken(self, site: Site) -> Iterator[str]:
        """See Launcher."""
        if site.map_file and site.split.dp > 1:
            yield "The log of rank 0 shows `moe_load_balancer` in the config that it prints."
            yield "With another `num_slots` in a copy of the map the start must fail: then the file is read."
