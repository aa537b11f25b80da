"""A front of deployments by TPOT limit, as `placement deploy --front` writes it (docs/formats.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from placement.errors import InputError
from placement.records.base import Amount, Record, Text, Whole
from placement.records.role import IntervalRecord, Provenance
from specs.documents import parse_json, read_text, shown
from specs.validation import validate

SCHEMA: Literal["placement.front/1"] = "placement.front/1"


class FrontAnswer(Record):
    """The deployment under one TPOT limit; `placement deploy --tpot-ms` has it whole.

    Attributes:
        provenance, interval: Of tokens/s; ttft_interval, tpot_interval: of these. Null in older files.
    """

    tpot_limit_ms: Amount
    tokens_per_s: Amount
    tokens_per_s_per_gpu: Amount
    gpus: Whole
    ttft_ms: Amount | None
    tpot_ms: Amount | None
    kinds: tuple[Text, ...]
    provenance: Provenance | None = None
    interval: IntervalRecord | None = None
    ttft_interval: IntervalRecord | None = None
    tpot_interval: IntervalRecord | None = None


class Front(Record):
    """Deployments of one scenario, by TPOT limit."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Annotated[Literal["placement.front/1"], Field(alias="schema")]
    scenario: Text
    answers: Annotated[tuple[FrontAnswer, ...], Field(min_length=1, max_length=1024)]

    def __repr__(self) -> str:
        return f"<Front of {self.scenario}: {len(self.answers)} TPOT limits>"

    __str__ = __repr__

    def json(self) -> str:  # type: ignore[override]
        """The front as JSON text."""
        return self.model_dump_json(by_alias=True, indent=1)


def load_front(path: str | Path) -> Front:
    """The front in a file.

    Raises:
        InputError: It can't be read, or is no front.
    """
    source = shown(str(path), 200)
    data = parse_json(read_text(Path(path), source), source)
    if data.get("schema") != SCHEMA:
        mend = "give the file that 'placement deploy --front --out' writes"
        raise InputError(source, "schema", f"is not {SCHEMA}", mend)
    front: Front = validate(Front, data, source)
    return front
