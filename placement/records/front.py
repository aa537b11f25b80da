"""A front of deployments by TPOT limit, as `placement deploy --front` writes it (docs/formats.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from placement.records.base import Amount, Record, Text, Whole

SCHEMA: Literal["placement.front/1"] = "placement.front/1"


class FrontAnswer(Record):
    """The deployment under one TPOT limit; `placement deploy --tpot-ms` has it whole."""

    tpot_limit_ms: Amount
    tokens_per_s: Amount
    tokens_per_s_per_gpu: Amount
    gpus: Whole
    ttft_ms: Amount | None
    tpot_ms: Amount | None
    kinds: tuple[Text, ...]


class Front(Record):
    """Deployments of one scenario, by TPOT limit."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Annotated[Literal["placement.front/1"], Field(alias="schema")]
    scenario: Text
    answers: Annotated[tuple[FrontAnswer, ...], Field(min_length=1)]

    def __repr__(self) -> str:
        return f"<Front of {self.scenario}: {len(self.answers)} TPOT limits>"

    __str__ = __repr__

    def json(self) -> str:  # type: ignore[override]
        """The front as JSON text."""
        return self.model_dump_json(by_alias=True, indent=1)
