"""`python -m bench run experts`: f(n) of catalog models' experts on one GPU, measured and by the cost model."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Literal

import click

from bench.options import json_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from bench.experts.recorded import Case, Measurement


@click.command("experts", cls=Command)
@click.option(
    "--measure", type=click.Choice(["cuda", "cpu"]),
    help="Measure on this machine; on a CPU only the command is tried. Default: the measurement that ships.",
)  # fmt: skip
@click.option("--measured", metavar="FILE", help="Show this measurement, as --out wrote it.")
@click.option("--case", "names", multiple=True, metavar="MODEL/TYPE/SLOTS", help="Cases to measure. Default: all.")
@click.option("--cluster", default="h100_hgx_ib", show_default=True, metavar="NAME", help="Whose GPU is measured.")
@click.option("--most-tokens", type=click.IntRange(1, 2**20), default=4096, show_default=True, metavar="N")
@click.option("--repeats", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--warmup", type=click.IntRange(1, 10_000), default=3, show_default=True, help="Untimed repeats.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@json_option
@click.option("--out", metavar="FILE", help="Write the measurement to this file, too.")
def command(
    measure: Literal["cuda", "cpu"] | None,
    measured: str | None,
    names: tuple[str, ...],
    cluster: str,
    most_tokens: int,
    repeats: int,
    warmup: int,
    seed: int,
    as_json: bool,
    out: str | None,
) -> None:
    """Hold the cost model's time of an expert with n tokens against what a GPU takes.

    f(n) = max(weights / memory rate, n * work / matrix rate). All slots of the GPU have n tokens, at powers of two.
    """
    from bench.experts.recorded import load, shipped
    from bench.experts.shown import text
    from placement.records.files import check_writable, write_text

    if out is not None:
        check_writable(out, "--out")
    if measure is not None:
        found = _measure(_chosen(names), measure, cluster, most_tokens, repeats, warmup, seed, not names)
    else:
        found = shipped() if measured is None else load(measured)
    if out is not None:
        write_text(out, found.model_dump_json() + "\n", "--out")
    emit(found.model_dump_json() if as_json else text(found))


def _chosen(names: tuple[str, ...]) -> tuple[Case, ...]:
    from bench.experts.recorded import CASES
    from placement.errors import InputError

    known = {each.name: each for each in CASES}
    for name in names:
        if name not in known:
            raise InputError("--case", name, "is no case", f"choose of {', '.join(known)}")
    return tuple(known[name] for name in names) or CASES


def _measure(
    cases: tuple[Case, ...], device_type: Literal["cuda", "cpu"], cluster: str, most: int, repeats: int, warmup: int,
    seed: int, whole: bool,
) -> Measurement:  # fmt: skip
    """Measures the cases; of all of them (`whole`) those are left out whose type the device has no kernels for."""
    from bench.alltoall.launch import need_torch
    from bench.experts.recorded import Measurement
    from placement.errors import InputError, MissingExtraError
    from specs.loading import load_cluster

    # A name that is wrong is told before anything is measured.
    load_cluster(cluster)
    need_torch()
    import torch

    from bench.experts.ceilings import ceilings
    from bench.experts.kernels import chosen_device, device_name
    from bench.experts.sweep import case_curve, driver_version

    device = chosen_device(device_type, "--measure")
    curves = []
    with torch.no_grad():
        best = ceilings(device, warmup, repeats)
        for case in cases:
            note(case.name)
            try:
                curves.append(case_curve(case, device, most, warmup, repeats, seed))
            except (InputError, MissingExtraError) as error:
                if not whole:
                    raise
                note(f"{case.name} is left out: {error}")
    return Measurement(
        device=device_name(device),
        cluster=cluster,
        driver=driver_version(),
        torch=torch.__version__,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        repeats=repeats,
        ceilings=best,
        curves=tuple(curves),
    )
