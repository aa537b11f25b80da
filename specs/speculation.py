"""Speculative decoding: what drafts tokens ahead, how many, and how many of them the model accepts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.fields import DataType, Layers, Positive, Spec

#: "mtp": the model's own next-token module; "eagle3": a trained head; "draft_model": a smaller model; "ngram": a
#: look-up in the sequence itself.
DraftMethod = Literal["mtp", "eagle3", "draft_model", "ngram"]


class Speculation(Spec):
    """Tokens that are drafted ahead, and verified in one step."""

    method: DraftMethod = "mtp"
    """What drafts: the model's own next-token module (one layer as its last, run once a token), a trained head, a
    smaller model, or a look-up in the sequence."""
    draft: Annotated[int, Field(ge=1, le=64, strict=True, json_schema_extra={"unit": "tokens"})]
    """Tokens drafted for each sequence in each step."""
    acceptance: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None = None
    """Chance that a drafted token is accepted if those before it are."""
    accepted: Annotated[
        float, Field(ge=0, le=64, allow_inf_nan=False, strict=True, json_schema_extra={"unit": "tokens"})
    ] | None = None  # fmt: skip
    """Instead of `acceptance`: drafted tokens that are accepted in a step, on average (the mean accepted length, less
    the token that a step yields anyway)."""
    parameters_b: Positive | None = None
    """Parameters of a trained head or smaller model, in billions, its embedding and output head included."""
    layers: Layers = 1
    """Layers of a trained head or smaller model."""
    type: DataType = "bf16"
    """Weights of a trained head or smaller model; a next-token module has the types of the model's last layer."""
    kv_bytes_per_token: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)] = 0.0
    """What a trained head or smaller model stores of a token, over all its layers, on all GPUs of an attention rank."""

    @model_validator(mode="after")
    def _says_what_is_accepted(self) -> Speculation:
        if self.acceptance is None and self.accepted is None:
            raise ValueError("how many drafts are taken is not said; give acceptance or accepted")
        if self.acceptance is not None and self.accepted is not None:
            raise ValueError("acceptance and accepted say the same; leave one of them out")
        if self.accepted is not None and self.accepted > self.draft:
            raise ValueError(f"accepted {self.accepted:g} is more than the {self.draft} tokens drafted; lower accepted")
        own = self.method in ("eagle3", "draft_model")
        if own and self.parameters_b is None:
            raise ValueError(f"method {self.method} needs parameters_b; set it to how many it has, in billions")
        for name in () if own else ("parameters_b", "layers", "type", "kv_bytes_per_token"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"method {self.method} takes no {name}; leave it out")
        return self

    @property
    def mean_accepted(self) -> float:
        """Drafted tokens that are accepted in a step, on average."""
        if self.accepted is not None:
            return self.accepted
        chance = self.acceptance or 0.0
        total, all_before = 0.0, 1.0
        for _ in range(self.draft):
            all_before *= chance
            total += all_before
        return total
