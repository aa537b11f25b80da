"""`python -m bench fits`: the smallest instance of every model on GPUs of every kind, next to vLLM's recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from placement.cli.command import Command
from placement.cli.running import emit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.fits.recipes import Asked, Checkpoint, Recipes
    from bench.fits.smallest import Instance
    from specs.cluster import Cluster

CLUSTERS = "h100_hgx_ib,h200_hgx_ib,b200_hgx_ib,gb200_nvl72_ib,mi300x_ib,mi355x_ib"
EPILOG = (
    "FITS/ASKED: GPUs of the smallest instance that fits, and of the recipe; ~: the recipe states no count, and these "
    "are as many GPUs (a power of two, or whole nodes) as have its vram_minimum_gb. Memory alone is counted, not "
    "whether a GPU has kernels for a type."
)


@dataclass(frozen=True)
class Cell:
    """A checkpoint on GPUs of one kind.

    Attributes:
        model, weights, recipe: as in recipes.yaml; "" for a model without a recipe. cluster: whose GPUs.
        fits: the smallest instance; None: none of up to 128 GPUs. asked: by the recipe.
        at_asked, at_context: where the recipe states another count: the instance of that size, and the smallest that
            holds a sequence of the model's whole context.
        why: what explains that.
    """

    model: str
    weights: str
    recipe: str
    cluster: str
    fits: Instance | None
    asked: Asked | None
    at_asked: Instance | None
    at_context: Instance | None
    why: str

    @property
    def text(self) -> str:
        here = str(self.fits.gpus) if self.fits else "-"
        return f"{here}/{'' if self.asked.stated else '~'}{self.asked.gpus}" if self.asked else here

    @property
    def differs(self) -> bool:
        """Whether the recipe states another count."""
        asked = self.asked
        return asked is not None and asked.stated and (self.fits is None or self.fits.gpus != asked.gpus)

    @property
    def reason(self) -> str:
        """Why the recipe states another count."""
        if self.why or self.fits is None or self.at_asked is None:
            return self.why or "no split of that size fits"
        if self.at_context is not None and self.at_context.gpus == self.at_asked.gpus:
            return "room for the model's whole context"
        if self.fits.sequences == self.at_asked.sequences:
            return f"not memory: both hold {self.fits.sequences} sequences"
        return f"{self.at_asked.sequences} sequences instead of {self.fits.sequences}"


@click.command("fits", cls=Command, epilog=EPILOG)
@click.option("--clusters", default=CLUSTERS, show_default=True, help="Of the catalog, separated by commas.")
@click.option("--models", default="", help="Of the catalog, separated by commas; all by default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: splits and sources, too.")
def command(clusters: str, models: str, as_json: bool) -> None:
    """GPUs of the smallest instance that vLLM loads and that fits HBM, next to what vLLM's recipes ask for.

    It fits if every attention rank has room for one sequence of the longest serving workload that the model's context
    holds (5,120 or 3,072 tokens), inside vLLM's share of HBM.
    """
    from bench.fits.recipes import load_recipes
    from specs.loading import load_cluster

    chosen = {name: load_cluster(name) for name in _names(clusters)}
    cells = list(_cells(load_recipes(), chosen, _names(models)))
    emit(json.dumps([asdict(cell) for cell in cells], indent=1) if as_json else _shown(cells, chosen))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _cells(recipes: Recipes, clusters: dict[str, Cluster], models: list[str]) -> Iterator[Cell]:
    """Every checkpoint on every cluster, checkpoints of a model together."""
    from bench.fits.smallest import default_workload, smallest
    from specs.loading import list_catalog, load_model
    from specs.overrides import overridden_spec

    for name in models or [entry.name for entry in list_catalog("model")]:
        plain = load_model(name)
        workload = default_workload(plain)
        if workload is None:  # a model that is trained alone
            continue
        own: list[Checkpoint | None] = [each for each in recipes.checkpoints if each.model == plain.name]
        for checkpoint in own or [None]:
            types = checkpoint.types if checkpoint else {}
            model = overridden_spec("model", plain, set={f"types.{field}": value for field, value in types.items()})
            for key, cluster in clusters.items():
                asked = recipes.asked(checkpoint, key) if checkpoint else None
                cell = Cell(
                    name, checkpoint.weights if checkpoint else model.types.experts,
                    checkpoint.recipe if checkpoint else "", key, smallest(model, cluster, workload), asked, None, None,
                    checkpoint.why.get(key, "") if checkpoint else "",
                )  # fmt: skip
                if cell.differs and asked is not None:
                    whole = workload
                    if model.context is not None:
                        whole = workload.model_copy(update={"isl": model.context - workload.osl})
                    at_asked = smallest(model, cluster, workload, asked.gpus)
                    cell = replace(cell, at_asked=at_asked, at_context=smallest(model, cluster, whole))
                yield cell


def _shown(cells: list[Cell], clusters: dict[str, Cluster]) -> str:
    """The table, and below it what differs."""
    from placement.report.text import columns, rendered

    rows: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        rows.setdefault((cell.model, cell.weights), []).append(cell.text)
    kinds = {key: cluster.gpu.name.rpartition(" ")[0].removesuffix(" SXM") for key, cluster in clusters.items()}
    stated = [cell for cell in cells if cell.asked is not None and cell.asked.stated]
    differ = [cell for cell in stated if cell.differs]
    parts: list[RenderableType] = [
        columns(["model", "weights", *kinds.values()], [[*k, *row] for k, row in rows.items()])
    ]
    if stated:
        parts += ["", f"Recipes state {len(stated)} counts; {len(stated) - len(differ)} are the smallest that fit."]
    if differ:
        why = [[cell.model, cell.weights, kinds[cell.cluster], cell.text, cell.reason] for cell in differ]
        parts += ["", columns(["model", "weights", "GPU", "count", "what the recipe has with its count"], why)]
    return rendered(parts)
