"""Megatron-LM: degrees, batches and the cut of a training plan, as arguments for whoever's training script.

The layout's grammar (core/transformer/pipeline_parallel_layer_layout.py): E the embedding, t a layer, L the head and
loss, `|` between pieces, `t*3` three layers. Pieces are in the order of layers; the i-th lies on rank i % pp.
"""

from __future__ import annotations

from collections.abc import Iterator

from placement.engines.launch.site import Site
from placement.engines.launch.switches import Option, shell_word, switches_of
from placement.errors import InputError
from specs.workload import TrainingWorkload

SWITCHES = switches_of("megatron")
FILE = "megatron.sh"


def layout(site: Site) -> str:
    """The cut as --pipeline-model-parallel-layout takes it.

    Raises:
        InputError: A schedule whose ranks hold other pieces than Megatron's, such as DualPipe's.
    """
    pieces = []
    for i, stage in enumerate(site.role.stages):
        if stage.stage != i % site.split.pp:
            problem = f"puts piece {i} on rank {stage.stage}, Megatron on {i % site.split.pp}"
            raise InputError(site.scenario.name, "schedule", problem, "plan with schedule 1f1b or interleaved")
        pieces.append("t" if site.stage_layers[i] == 1 else f"t*{site.stage_layers[i]}")
    return "E" + "|".join(pieces) + "L"


def options(site: Site) -> Iterator[Option]:
    """The arguments of a training plan."""
    option, split, workload = SWITCHES.option, site.split, _workload(site)
    yield option("--tensor-model-parallel-size", split.tp, reason="GPUs of a tensor-parallel group")
    yield option("--pipeline-model-parallel-size", split.pp, reason="ranks of the pipeline")
    if split.pp > 1:
        yield option("--pipeline-model-parallel-layout", layout(site), reason="layers of each piece, as planned")
    yield option("--expert-model-parallel-size", split.ep, reason="GPUs that the experts of a layer are spread over")
    yield option("--expert-tensor-parallel-size", split.etp, reason="GPUs that share an expert")
    yield option("--micro-batch-size", workload.microbatch, reason="sequences of one pass")
    yield option("--global-batch-size", workload.global_batch, reason="sequences of a step")
    yield option("--seq-length", workload.sequence, reason="tokens of a sequence")
    if workload.zero_stage:
        yield option("--use-distributed-optimizer", reason=f"ZeRO {workload.zero_stage} in the plan")
    chosen = set(split.recompute or (("full" if workload.recompute == "auto" else workload.recompute),))
    if chosen == {"full"}:
        yield option("--recompute-granularity", "full", reason="every layer is computed again, as planned")
        yield option("--recompute-method", "uniform", reason="every layer is computed again, as planned")
        yield option("--recompute-num-layers", 1, reason="every layer is computed again, as planned")
    elif "selective" in chosen:
        yield option("--recompute-granularity", "selective", reason="attention is computed again, as planned")


def notes(site: Site) -> Iterator[str]:
    """What Megatron does otherwise than planned."""
    workload = _workload(site)
    yield "Experts lie in order: Megatron loads no expert map."
    if len(set(site.split.recompute or ())) > 1:
        yield "The plan chooses what is computed again layer by layer; Megatron has one choice for all."
    if workload.zero_stage > 1:
        yield f"The plan counts ZeRO {workload.zero_stage}; Megatron's optimizer shares out its state alone."


def script(site: Site) -> str:
    """A file to source before the training script, which takes the array."""
    lines = [
        "# Source this, and give the array to your training script (README.md).",
        "PLACEMENT_ARGS=(",
    ]
    for option in options(site):
        value = "" if option.value is None else f" {shell_word(option.value)}"
        lines += [f"  # {option.reason[0].upper()}{option.reason[1:]}.", f"  {option.name}{value}"]
    return "\n".join([*lines, ")", ""])


def readme(site: Site) -> str:
    """What the folder's README.md says."""
    split = site.split
    gpus = split.gpus_per_instance * split.instances
    return "\n".join(
        [
            f"# {site.scenario.name} on Megatron-LM", "",
            f"Source `{site.folder}/{FILE}` and give `PLACEMENT_ARGS` to your training script, on {gpus} GPUs:", "",
            "```sh", f"source {site.folder}/{FILE}", 'torchrun ... pretrain.py "${PLACEMENT_ARGS[@]}" ...', "```", "",
            "The log prints these arguments, and the layout rank by rank, at the start.", "",
            *(f"- {note}" for note in notes(site)), "",
        ]
    )  # fmt: skip


def _workload(site: Site) -> TrainingWorkload:
    if site.scenario.workload.kind != "training":
        raise InputError(site.scenario.name, "workload", "serves, and Megatron trains", "export it to a serving engine")
    return site.scenario.workload
