"""Published training runs with their settings, and what the cost model predicts of each.

`training_rates.csv` holds the facts, each with its source; models and clusters that the catalog lacks lie in
`training_specs`. What a source does not state is named in the column `assumed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bench.accuracy.flops import training_flops_per_token
from bench.csv_files import read_csv
from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.training.constants import TrainingConstants, load_training
from placement.cost.training.step import TrainingModel
from placement.errors import InputError
from placement.problem.split import Split, make_split
from specs.cluster import Cluster
from specs.fields import DataType
from specs.loading import load_cluster, load_model
from specs.model import Model
from specs.scenario import Scenario
from specs.validation import validate
from specs.workload import Recompute, Schedule, TrainingWorkload

SHIPPED = Path(__file__).with_name("training_rates.csv")
_SPECS = Path(__file__).with_name("training_specs")
#: Megatron-LM and its derivatives reduce gradients in 16 bits in these recipes (grad_reduce_in_fp32 is off).
GRADIENT_BYTES = 2.0

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Stated = Annotated[Positive | None, BeforeValidator(lambda text: text or None)]
Count = Annotated[int, Field(ge=1)]


class TrainingRun(BaseModel):
    """One published run.

    Attributes:
        precision: what products are computed in; embedding, head, router and messages are in 16 bits.
        chunks: pieces of the model on a rank (virtual pipeline stages).
        dispatcher: alltoall sends each copy of a token; the others send a token once to a rank or node.
        overlap: messages of one microbatch run beside another's compute.
        mtp: a next-token module was trained along; its work is in the published FLOP/s.
        routing: forced to be balanced, balanced by dropping what exceeds capacity, or real.
        pairs: what the published FLOP/s count of attention, where only they are stated.
        assumed: what the source does not state.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    model: str
    cluster: str
    gpus: Count
    precision: Literal["bf16", "fp8"]
    tp: Count
    ep: Count
    etp: Count
    pp: Count
    chunks: Count
    schedule: Schedule
    global_batch: Count
    microbatch: Count
    sequence: Count
    recompute: Recompute
    dispatcher: Literal["alltoall", "deepep", "hybridep"]
    overlap: bool
    mtp: bool
    routing: Literal["balanced", "dropped", "real"]
    tokens_per_s_per_gpu: Stated
    tflops_per_gpu: Stated
    pairs: Literal["causal", "all"]
    assumed: str
    date: str
    source: str

    @property
    def settings(self) -> tuple[object, ...]:
        """What tells a run from another release's run of the same."""
        return tuple(
            getattr(self, name) for name in type(self).model_fields
            if name not in ("id", "tokens_per_s_per_gpu", "tflops_per_gpu", "date", "source")
        )  # fmt: skip

    @property
    def generation(self) -> str:
        """The GPU's generation."""
        return _cluster(self.cluster).gpu.generation or ""

    @property
    def flops_per_token(self) -> float:
        """FLOP of the main model for a token, with the pairs of a causal mask."""
        return training_flops_per_token(_model(self.model), self.sequence)

    @property
    def measured(self) -> float:
        """Tokens/s of a GPU. Where a next-token module ran, too, what the FLOP/s are of the main model alone."""
        if self.tokens_per_s_per_gpu is not None and not (self.mtp and self.tflops_per_gpu):
            return self.tokens_per_s_per_gpu
        if self.tflops_per_gpu is None:
            raise InputError(self.id, "tokens_per_s_per_gpu", "is missing, and so are FLOP/s", "state one of them")
        work = training_flops_per_token(_model(self.model), self.sequence, self.pairs == "causal")
        return self.tflops_per_gpu * 1e12 / work

    @property
    def peak(self) -> float:
        """16-bit peak FLOP/s of the GPU, which MFU is counted against."""
        return _cluster(self.cluster).gpu.peak_flops("bf16")


def read_runs(path: str | Path = SHIPPED) -> tuple[TrainingRun, ...]:
    """All runs of a file.

    Raises:
        InputError: the file can't be read, or a field of a row is missing or wrong.
    """
    runs = []
    for line, row in enumerate(read_csv(path), start=2):
        try:
            runs.append(TrainingRun.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"][:1])) or "row"
            raise InputError(str(path), f"line {line}, {field}", first["msg"].lower(), "mend it") from None
    if not runs:
        raise InputError(str(path), "", "has no rows", "give training_rates.csv")
    return tuple(runs)


@dataclass(frozen=True)
class PosedRun:
    """A run as the cost model takes it."""

    run: TrainingRun
    scenario: Scenario
    workload: TrainingWorkload
    split: Split

    def predicted(self, constants: TrainingConstants | None = None) -> float:
        """Tokens/s of a GPU."""
        constants = constants or load_training()
        if self.run.routing != "real":
            even = constants.routing_imbalance.model_copy(update={"value": 1.0})
            constants = constants.model_copy(update={"routing_imbalance": even})
        step = TrainingModel(self.scenario, self.workload, self.split, load_efficiency(), training=constants).step()
        return self.workload.global_batch * self.workload.sequence / step.step_s / self.run.gpus


def posed_runs(path: str | Path = SHIPPED) -> list[PosedRun]:
    """The runs of a file, as the cost model takes them.

    Raises:
        InputError: as `read_runs`; or a run that can't be posed, with its id.
    """
    found = []
    for run in read_runs(path):
        try:
            found.append(posed(run))
        except InputError as error:
            at = ", ".join(each for each in (f"run {run.id}", error.field) if each)
            told = error.problem if error.source == run.id else f"{error.source}: {error.problem}"
            raise InputError(str(path), at, told, error.mend) from None
    return found


def posed(run: TrainingRun) -> PosedRun:
    """The scenario and split of a run.

    Raises:
        InputError: the model or cluster is not known, or the degrees don't divide what they split.
    """
    stage = run.ep * run.etp
    replicas, rest = divmod(run.gpus, stage * run.pp)
    each, left = divmod(run.global_batch, max(1, run.gpus // run.tp // run.pp))
    if rest or left or each % run.microbatch or stage % run.tp or not replicas:
        raise InputError(run.id, "gpus", "degrees, GPUs and batch don't divide", "correct the row")
    workload: TrainingWorkload = validate(TrainingWorkload, {
        "kind": "training", "name": "published", "global_batch": run.global_batch, "sequence": run.sequence,
        "microbatch": run.microbatch, "gradient_bytes_per_parameter": GRADIENT_BYTES, "recompute": run.recompute,
        "schedule": run.schedule, "chunks": max(2, run.chunks),
    }, run.id)  # fmt: skip
    scenario: Scenario = validate(Scenario, {
        "name": run.id,
        "model": _computed(_model(run.model), run.precision),
        "cluster": _filled(_cluster(run.cluster), run.gpus),
        "workload": workload,
        "redundant": 0,
        "message_rule": "per_expert" if run.dispatcher == "alltoall" else None,
        "overlap": "two_batch" if run.overlap else "none",
    }, run.id)  # fmt: skip
    split = make_split(
        scenario, run.tp, run.ep, run.pp, stage // run.tp, each // run.microbatch * run.microbatch, instances=replicas
    )
    return PosedRun(run, scenario, workload, split)


@cache
def _model(name: str) -> Model:
    own = _SPECS / f"{name}.yaml"
    return load_model(str(own) if own.is_file() else name)


@cache
def _cluster(name: str) -> Cluster:
    own = _SPECS / f"{name}.yaml"
    return load_cluster(str(own) if own.is_file() else name)


def _computed(model: Model, precision: DataType) -> Model:
    """Products in `precision`; embedding, head and messages in 16 bits."""
    types = model.types.model_copy(
        update={
            "attention": precision, "dense": precision, "experts": precision, "compute": precision, "shared": None,
            "embedding": "bf16", "dispatch": "bf16", "combine": "bf16",
        }
    )  # fmt: skip
    return model.model_copy(update={"types": types})


def _filled(cluster: Cluster, gpus: int) -> Cluster:
    """`gpus` of the cluster: of a rack of 72, jobs take 64."""
    node = 1 << (min(cluster.gpus_per_node, gpus).bit_length() - 1)
    tray = cluster.gpus_per_tray if node % cluster.gpus_per_tray == 0 else 1
    return cluster.model_copy(
        update={"nodes": gpus // node, "gpus_per_node": node, "gpus_per_os_node": None, "gpus_per_tray": tray}
    )
