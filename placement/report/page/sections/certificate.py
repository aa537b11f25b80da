"""How far from the best possible a placement can be, and what was checked of the plan."""

from __future__ import annotations

from collections.abc import Sequence

from placement.check.findings import Check
from placement.records.plan import Plan
from placement.records.role import CERTIFICATE_UNITS, LayerRecord, RolePlan
from placement.report.page.blocks import Block, Curve, Lines, Prose, Section, Table, Warn
from placement.report.page.sections.words import told
from placement.report.units import grouped

#: What an objective measures, and its unit after a figure.
_MEASURES = {
    "us": ("MoE-layer time", " us"),
    "max_over_mean": ("largest GPU load over the mean", ""),
    "bytes_per_token": ("bytes between nodes per token", " bytes"),
}


def certificate_words(plan: Plan, role: RolePlan) -> str:
    """The certificate in one sentence."""
    record, layers = role.certificate, role.layers
    measure, unit = _MEASURES[record.unit]
    proven = sum(layer.status == "optimal" for layer in layers)
    if proven == len(layers):
        return f"Certificate: no placement has less {measure}; all {len(layers)} layers are proven optimal."
    if record.gap is None:
        return f"Certificate: none. Nothing is proven of the best possible {measure}."
    some = f"; {proven} of {len(layers)} layers are proven optimal" if proven else ""
    return (
        f"Certificate: on the routing solved on, the {measure} is {_amount(record.objective)}{unit}, and no placement "
        f"can go below {_amount(record.bound)}{unit}: at most {record.gap:.2%} more than the best possible{some}."
    )


def certificate(plan: Plan, role: RolePlan) -> Section:
    """The certificate and each layer's part in it."""
    layers = role.layers
    measure, unit = _MEASURES[role.certificate.unit]
    scale = CERTIFICATE_UNITS[plan.objective][1]
    gaps = [layer.gap for layer in layers if layer.gap is not None]
    worst = f" The largest gap of a layer is {max(gaps):.1%}." if gaps else ""
    chart = Lines(
        "Objective and bound by layer",
        f"The objective lies above the bound in every layer, or on it where the layer is proven optimal.{worst}",
        "layer", f"{measure}{f' [{unit.strip()}]' if unit else ''}",
        tuple(layer.layer for layer in layers),
        (
            Curve("objective", tuple(layer.objective * scale for layer in layers)),
            Curve("bound", tuple(layer.bound * scale for layer in layers)),
        ),
    )  # fmt: skip
    rows = tuple(_row(layer, scale) for layer in layers)
    header = ("layer", "objective", "bound", "gap", "status")
    return Section(
        "Certificate",
        (
            Prose(certificate_words(plan, role)),
            Prose(
                "The certificate is of expert placement under this split and batch. It says nothing of other splits "
                f"or batches. Bounds come from: {_counted([layer.bound_source for layer in layers])}. The search ended "
                f"by: {_counted([layer.termination for layer in layers])}."
            ),
            chart,
            Table(f"Layers: {measure}{f' in {unit.strip()}' if unit else ''}", header, rows),
        ),
    )


def _row(layer: LayerRecord, scale: float) -> tuple[str, ...]:
    gap = "-" if layer.gap is None else f"{layer.gap:.2%}"
    return (str(layer.layer), _amount(layer.objective * scale), _amount(layer.bound * scale), gap, layer.status)


def _amount(value: float) -> str:
    """A figure with at least four digits."""
    return grouped(value, 3 if value < 10 else 2 if value < 100 else 1)


def _counted(words: Sequence[str]) -> str:
    """Each word with the number of layers that it is said of."""
    each = [(word, words.count(word)) for word in dict.fromkeys(words)]
    return ", ".join(f"{told(word, 60)} ({count} {'layer' if count == 1 else 'layers'})" for word, count in each[:8])


def checks(found: Sequence[Check], title: str = "Checked again") -> Section:
    """What was checked when the report was made."""
    failed = [check for check in found if check.passed is False]
    missing = [check for check in found if check.kind == "missing"]
    blocks: list[Block] = []
    if failed:
        names = ", ".join(check.name for check in failed)
        blocks.append(Warn(f"{len(failed)} checks FAILED: {names}. Do not run this plan; plan it anew."))
    made = sum(check.kind == "checked" for check in found)
    blocks.append(
        Prose(
            f"Every report checks its plan again, without code of the solvers: {made} checks were made, "
            f"{len(failed)} failed, {len(missing)} could not be made. A claim is what nothing but the plan says."
        )
    )
    words = {True: "ok", False: "FAILED", None: ""}
    rows = tuple((check.name, words[check.passed] or check.kind, told(check.detail, 300)) for check in found)
    blocks.append(Table("Checks", ("check", "result", "what was found"), rows, words=True))
    return Section(title, tuple(blocks))
