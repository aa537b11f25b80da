"""Bytes of activations on one GPU: the working set of a pass, and what training keeps for the backward pass.

Activations are 16-bit. Tensor-parallel GPUs share tokens between products (sequence parallelism), so what a layer keeps
per token is split over tp.
"""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.memory.local import total_of
from placement.cost.memory.recompute import ModeCounts, mode_counts
from placement.cost.step.passes import decode_microbatches
from placement.problem.pieces import StageShape
from placement.problem.schedule import in_flight
from placement.problem.split import Split
from specs.blocks.run import Block
from specs.fields import bytes_of
from specs.model import Model
from specs.workload import TrainingWorkload

WIDE_BYTES = 2.0
LOGIT_BYTES = 4.0


def mixer_width(model: Model, tp: int) -> float:
    """Elements per token inside the widest mixer on one GPU, such as queries, keys, values and attention output."""
    return max(mixer.width(tp) for mixer in model.mixers.values())


def dense_width(model: Model, tp: int) -> float:
    """Elements per token inside the widest dense or shared block on one GPU: gate, up and product."""
    return 3 * max(ffn.inner_width for ffn in model.ffns.values()) / tp


def routed_width(model: Model, split: Split) -> float:
    """Elements per token of a GPU inside the widest routed experts, at balanced routing.

    On average a rank receives top_k copies for each token it sends; each is gathered over the rank's etp GPUs, which
    split the experts' width.
    """
    return max(
        moe.computed_top_k * split.etp * (2 * moe.sent_width(model.hidden) + 3 * moe.expert_width / split.etp)
        for moe in model.moe_kinds
    )


def layer_working_bytes(model: Model, split: Split, tokens: float, margin: float) -> float:
    """Working set of one layer for `tokens` of an attention rank; `margin` over the balanced count of routed copies."""
    whole = (2 + model.streams) * model.hidden + mixer_width(model, split.tp) + dense_width(model, split.tp)
    return WIDE_BYTES * tokens * (whole + margin * routed_width(model, split) / split.tp)


def serving_activation_bytes(
    model: Model, split: Split, batch: int, each: int, budget: float, efficiency: Efficiency
) -> float:
    """Working set of one layer in the larger of a prefill pass of `budget` tokens and a decode step with `each` tokens
    of a sequence."""
    tokens = max(batch * each / decode_microbatches(split.pp, batch), budget)
    return layer_working_bytes(model, split, tokens, efficiency.receive_margin.value)


def serving_logit_bytes(model: Model, split: Split, batch: int, each: int = 1) -> float:
    """Logits of a decode step with `each` tokens of a sequence, on the last stage."""
    return LOGIT_BYTES * batch * each / decode_microbatches(split.pp, batch) * model.vocabulary / split.tp


@dataclass(frozen=True)
class KeptElements:
    """What training keeps of a token for the backward pass, on one GPU, by kind of layer.

    Attributes:
        input_bytes: a layer's input, kept under every recompute mode.
        none: [kinds] bytes of the operands of its products that recompute "none" keeps beside.
        selective: [kinds] the same under "selective", which computes norms, the activation's product and MLA's
            up-projections again.
    """

    input_bytes: float
    none: tuple[float, ...]
    selective: tuple[float, ...]

    @classmethod
    def of(cls, model: Model, split: Split) -> KeptElements:
        """Operands are kept in the type that they are multiplied in, at most 16 bits (arXiv 2412.19437, 3.3.3)."""
        kinds = [_kept_of(model, block, split) for block in model.kinds]
        return cls(
            input_bytes=WIDE_BYTES * model.streams * model.hidden / split.tp,
            none=tuple(none for none, _ in kinds),
            selective=tuple(selective for _, selective in kinds),
        )

    def bytes(self, modes: ModeCounts) -> float:
        """Bytes of a token in layers of each mode."""
        none, selective, _ = modes
        total = self.input_bytes * sum(sum(counts) for counts in modes)
        return total + total_of(self.none, none) + total_of(self.selective, selective)


def _kept_of(model: Model, block: Block, split: Split) -> tuple[float, float]:
    """Bytes of a token that recompute "none" and "selective" keep of one layer beside its input."""
    tp, types, hidden = split.tp, model.types, model.hidden / split.tp
    mixer, ffn, moe = model.mixer_of(block), model.ffn_of(block), model.moe_of(block)
    attention = min(WIDE_BYTES, bytes_of(types.attention))
    dense, routed = (min(WIDE_BYTES, bytes_of(kind)) for kind in (types.dense, types.multiplied))
    none = selective = 0.0
    if mixer is not None:
        none += attention * (hidden + mixer.width(tp))
        selective += attention * mixer.selective_width(tp)
    if ffn is not None:
        flat = 3 * ffn.inner_width / tp
        none += dense * (hidden + flat)
        selective += dense * (hidden + 2 / 3 * flat)
    if moe is not None:
        # Received inputs and outputs, and gate, up and product inside; selective keeps inputs, gate and up.
        copies, sent = moe.computed_top_k * split.etp / tp, moe.sent_width(model.hidden)
        none += routed * copies * (2 * sent + 3 * moe.expert_width / split.etp)
        selective += routed * copies * (sent + 2 * moe.expert_width / split.etp)
    return none, selective


def kept_bytes(
    model: Model, workload: TrainingWorkload, split: Split, shapes: tuple[StageShape, ...] | None = None
) -> tuple[float, ...]:
    """[pieces] activations of all microbatches in flight at most, kept for the backward pass on one GPU."""
    tokens = float(workload.microbatch * workload.sequence)
    kept = KeptElements.of(model, split)
    return tuple(
        in_flight(workload, split.pp, piece, split.microbatches) * tokens * kept.bytes(modes)
        for piece, modes in enumerate(mode_counts(model, workload, split, shapes))
    )


def training_working_bytes(
    model: Model, workload: TrainingWorkload, split: Split, last: bool, efficiency: Efficiency
) -> float:
    """One layer's working set, and the logits where the rank has the head."""
    tokens = float(workload.microbatch * workload.sequence)
    logits = LOGIT_BYTES * tokens * model.vocabulary / split.tp if last else 0.0
    return layer_working_bytes(model, split, tokens, efficiency.receive_margin.value) + logits
