"""How much routing a plan needs: solved on one to five sixths of each domain's sequences, judged on another sixth."""

from __future__ import annotations

from dataclasses import dataclass

from bench.placement_quality.gains import Tell
from bench.placement_quality.measure import RIVAL, SOLVED, Solves
from bench.placement_quality.protocol import FOLDS, Setting
from bench.placement_quality.result import Part

EXTRA = (0.0, 0.5)
HEADER = ("setting", "tokens", "faster", "faster, solved on", "bytes", "layer us", "eplb's")


@dataclass(frozen=True)
class Learnt:
    """Solved on so much routing, against the balancer on as much; means over folds, domains and layers.

    Attributes:
        folds: sixths of the sequences that were solved on. tokens: of a domain in them.
        speedup, train_speedup: MoE-layer time of the balancer over the solved one's, on the sixth that judges and on
            the routing solved on.
        bytes_change: cross-node bytes per token, relative to the balancer's. layer_us, rival_us: on the judging sixth.
    """

    extra: float
    folds: int
    tokens: float
    speedup: float
    train_speedup: float
    bytes_change: float
    layer_us: float
    rival_us: float


def tokens_part(solves: Solves, tell: Tell) -> Part:
    """Prefill time by the tokens solved on, each sixth of the sequences judging in turn, the same ones for all."""
    found = []
    for extra in EXTRA:
        for folds in range(1, FOLDS):
            tell(f"tokens: {extra:.0%} extra, {folds} of {FOLDS} parts")
            found.append(_learnt(solves, extra, folds))
    rows = tuple(
        (
            f"prefill, +{one.extra:.0%}, {one.folds} of {FOLDS}", f"{one.tokens:,.0f}", f"{one.speedup:.3f}x",
            f"{one.train_speedup:.3f}x", f"{one.bytes_change:+.1%}", f"{one.layer_us:.1f}", f"{one.rival_us:.1f}",
        )
        for one in found
    )  # fmt: skip
    title = f"MoE-layer time by tokens of a domain solved on, judged on another {FOLDS}th, planned dispatch"
    return Part("tokens", title, HEADER, rows, found)


def _learnt(solves: Solves, extra: float, folds: int) -> Learnt:
    cases, setting = solves.recorded.folded(folds), Setting(extra=extra)
    solved, rival = (solves.means("in-domain", cases, setting, name) for name in (SOLVED, RIVAL))
    return Learnt(
        extra, folds, solves.recorded.folded_tokens(folds), rival.layer_us / solved.layer_us,
        rival.train_layer_us / solved.train_layer_us, solved.bytes_per_token / rival.bytes_per_token - 1,
        solved.layer_us, rival.layer_us,
    )  # fmt: skip
