"""What is worth setting, and what is left out: records of `catalog.yaml`, whose names must stand in the lists."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from placement.engines.settings.names import Software, names_of
from specs.documents import shipped_yaml
from specs.fields import Flag, Name, Spec, Text

#: nvlink: one OS node. nvl72: OS nodes of one NVLink domain. Others: over the network between domains.
Fabric = Literal["nvlink", "nvl72", "ib", "efa", "ethernet"]
FABRICS: tuple[Fabric, ...] = get_args(Fabric)
#: required: it does not start, or fails later, without. recommended: safe, and better than the default for a reason
#: that holds everywhere. measure_first: pays on some machines and costs on others; never set without a measurement.
Need = Literal["required", "recommended", "measure_first"]
#: What only the site knows.
SiteValue = Literal["hca", "interface", "service_level", "traffic_class"]
#: Engines whose settings are known.
EngineName = Literal["vllm", "sglang"]
#: How a value follows from the instance; see placement.engines.presets.formulas.
FormulaName = Literal[
    "backend", "expert_ranks", "deepep_mode", "bulk_buffer_mib", "graph_size", "rank_tokens", "queue_depth", "one_nic",
]  # fmt: skip

Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\n]+$", strict=True)]


class Document(Spec):
    """Where it is said what a setting does."""

    title: Line
    """Title, or the file in a wheel."""
    url: Text = ""
    """Address; empty for a file in a wheel."""

    def __str__(self) -> str:
        return f"{self.title} <{self.url}>" if self.url else self.title


class _About(Spec):
    """What settings and settings that are left out have in common."""

    fabrics: Annotated[tuple[Fabric, ...], Field(max_length=8)] = FABRICS
    """Where it matters."""
    backends: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    """All-to-all backends that it matters to; none: all."""
    document: Name
    """Key of its document."""

    def about(self, fabric: Fabric, backend: str) -> bool:
        """Whether it matters on a fabric, under a backend."""
        return fabric in self.fabrics and (not self.backends or backend in self.backends)


class Setting(_About):
    """A variable or an option that is worth setting.

    Its value is `value`, or follows by `formula`, or is the site's own (`site`). With none of the three, it is an
    option of the launch command, which has value and reason.
    """

    name: Name
    """As the software spells it."""
    software: Software
    """Whose it is."""
    need: Need
    """How much it is needed."""
    reason: Line | Literal[""] = ""
    """Why, in a line."""
    engines: Annotated[tuple[EngineName, ...], Field(max_length=4)] = ("vllm", "sglang")
    """Engines under which it matters."""
    value: Text | None = None
    """Its value where that is always the same."""
    formula: FormulaName | None = None
    """How its value follows."""
    site: SiteValue | None = None
    """What of the site it is."""
    alltoall: Flag = False
    """Whether it is about messages of experts."""

    @property
    def kind(self) -> Literal["option", "variable"]:
        """Of the command, or of the environment."""
        return "option" if self.name.startswith("-") else "variable"

    @model_validator(mode="after")
    def _is_known(self) -> Setting:
        known = names_of(self.software)
        if self.name not in known.options | known.variables:
            raise ValueError(f"{self.name} is no name that {self.software} {known.version} knows")
        if self.name in known.debugging:
            raise ValueError(f"{self.name} is for debugging, says the guide of {self.software}; leave it out")
        ways = [self.value, self.formula, self.site]
        if sum(way is not None for way in ways) > 1:
            raise ValueError(f"{self.name} has several of value, formula and site; keep one")
        if not self.reason and any(way is not None for way in ways):
            raise ValueError(f"{self.name} has no reason; say why it is set")
        return self


class LeftOut(_About):
    """What is often set, and why it is not."""

    setting: Line
    """Names, with a value where one is usual."""
    why: Line
    """Why it is left out."""


class Catalog(Spec):
    """All settings."""

    documents: dict[Name, Document]
    """Documents by key."""
    settings: tuple[Setting, ...]
    """What is worth setting."""
    left_out: tuple[LeftOut, ...]
    """What is not."""

    @model_validator(mode="after")
    def _agrees(self) -> Catalog:
        for each in (*self.settings, *self.left_out):
            if each.document not in self.documents:
                raise ValueError(f"document {each.document} is none of the catalog's; add it")
        names = [each.name for each in self.settings]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} stand twice")
        return self

    def setting(self, name: str) -> Setting | None:
        """The setting of that name."""
        return next((each for each in self.settings if each.name == name), None)

    def document(self, each: _About) -> str:
        """Where it is said what a setting does."""
        return str(self.documents[each.document])


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """The catalog of settings."""
    return Catalog.model_validate(shipped_yaml(__package__, "catalog.yaml"))
