"""Figures of a plan in words, as several sections say them."""

from __future__ import annotations

from collections.abc import Mapping

from placement.records.role import Figure, RoleName, RolePlan, StrategyRecord
from placement.report.certainty import bracket
from placement.report.units import grouped
from specs.documents import shown

#: Longest name that is told whole.
LONGEST = 200
#: Two tokens/s that differ by less than this share are called the same.
ALIKE = 1e-3
#: What the parts of a step in a plan file are parts of.
PASS: Mapping[RoleName, str] = {
    "aggregated": "a decode step", "decode": "a decode step", "prefill": "a prompt's prefill",
    "training": "a microbatch's forward pass",
}  # fmt: skip


def told(text: str, most: int = LONGEST) -> str:
    """A text of a plan file, printable and not too long."""
    return shown(text, most)


def counted(count: int, noun: str) -> str:
    """A number of things."""
    return f"{grouped(count)} {noun}" if count == 1 else f"{grouped(count)} {noun}s"


def instances(role: RolePlan, kind: str = "") -> str:
    """Instances of a role with their degrees; `kind`: what they are called, such as "prefill "."""
    gpus = role.gpus // role.split.instances
    number = counted(role.split.instances, f"{kind}instance")
    if gpus == 1:
        return f"{number} of one GPU"
    each = "" if role.split.instances == 1 else f", {gpus} GPUs each"
    return f"{number} of {role.degrees}{each}"


def share(part: float, whole: float) -> str:
    """A part in percent of a whole."""
    return "-" if whole <= 0 else f"{part / whole:.1%}"


def difference(value: float, base: float) -> str:
    """How far a value lies from a base, in percent."""
    if base <= 0:
        return "-"
    return "same" if abs(value / base - 1) < 5e-5 else f"{value / base - 1:+.2%}"


def against(figure: Figure | None, limit: float) -> str:
    """A time beside its limit."""
    if figure is None:
        return "-"
    verdict = "met" if figure.value <= limit else f"MISSED by {figure.value - limit:,.2f} ms"
    return f"{figure.value:,.2f} ms{bracket(figure)} of at most {limit:,g} ms: {verdict}"


def best_rival(role: RolePlan) -> StrategyRecord | None:
    """The strategy with the most tokens/s, the plan's own aside; at their own batches where all have one."""
    rivals = [row for row in role.strategies if row is not role.own]
    return max(rivals, key=lambda row: tokens_per_s(role, row), default=None)


def at_own(role: RolePlan) -> bool:
    """Whether every strategy has figures at its own batch."""
    return bool(role.strategies) and all(row.at_own_batch is not None for row in role.strategies)


def tokens_per_s(role: RolePlan, row: StrategyRecord) -> float:
    """A strategy's tokens/s: at its own batch where all strategies have one, else at the batch of the split."""
    operation = row.at_own_batch
    return operation.tokens_per_s if at_own(role) and operation is not None else row.tokens_per_s


def than_rival(role: RolePlan) -> str:
    """The plan's own tokens/s against the best other strategy's, in a sentence; "" where there is none."""
    own, rival = role.own, best_rival(role)
    if own is None or rival is None:
        return ""
    mine, its = tokens_per_s(role, own), tokens_per_s(role, rival)
    where = f"{told(rival.name, 40)}, {'each at its own batch' if at_own(role) else 'at one batch'}"
    if its <= 0 or abs(mine / its - 1) < ALIKE:
        return f"Solving gains nothing here: the best other strategy yields the same tokens/s within 0.1% ({where})."
    word = "more" if mine > its else "FEWER"
    return f"The placement yields {abs(mine / its - 1):.2%} {word} tokens/s than the best other strategy ({where})."
