"""What a draft of speculative decoding stores: its weights and its KV cache, on the GPUs of the last stage.

A next-token module is one more layer as the model's last, behind a product that joins a hidden state with an embedding.
It shares the model's embedding and output head. A trained head or smaller model is what the workload states of it.
"""

from __future__ import annotations

from placement.cost.memory.local import LocalParameters, Share, stored_bytes
from placement.problem.split import Split
from specs.blocks.base import PLAIN_BYTES
from specs.fields import bytes_of
from specs.model import Model
from specs.scenario import Scenario
from specs.speculation import Speculation


def speculation_of(scenario: Scenario) -> Speculation | None:
    """The speculative decoding of a scenario; None where it has none."""
    return scenario.workload.speculation if scenario.workload.kind == "serving" else None


def joined_parameters(model: Model) -> int:
    """Of the product that joins the hidden state with the next token's embedding, whole on every GPU."""
    return 2 * model.hidden * model.hidden


def draft_weights(scenario: Scenario, split: Split, local: LocalParameters) -> Share:
    """Weights of the draft on one GPU of the last stage."""
    model, told = scenario.model, speculation_of(scenario)
    if told is None or told.method == "ngram":
        return Share()
    if told.parameters_b is not None:
        count = told.parameters_b * 1e9 / split.tp
        return Share(count, count * bytes_of(told.type))
    layer = local.blocks[model.kind_of_layer[-1]]
    plain = float(joined_parameters(model) + 3 * model.hidden)
    held = layer.attention + layer.norms + layer.dense + layer.router + layer.shared + layer.experts
    held += Share(plain, plain * PLAIN_BYTES)
    # The last of several stages has no embedding of the model's own.
    own = local.embedding if split.pp > 1 and not model.tied_embedding else 0.0
    return held + Share(own, own * bytes_of(model.types.embedding))


def draft_kv_bytes(scenario: Scenario, context: float, tp: int = 1) -> float:
    """Bytes that the draft keeps of a sequence of `context` tokens on one of `tp` GPUs of the last stage."""
    model, told = scenario.model, speculation_of(scenario)
    if told is None or told.method == "ngram":
        return 0.0
    if told.method == "mtp":
        return stored_bytes(model, context, tp)[model.kind_of_layer[-1]]
    return told.kv_bytes_per_token * context / tp
