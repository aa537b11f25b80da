"""What is known of a recording's model: sizes by which axes, columns and rows are recognized."""

from __future__ import annotations

from dataclasses import dataclass, replace

from placement.errors import InputError
from specs.fields import MAX_EXPERTS, MAX_TOP_K
from specs.model import Model


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model; None where nobody said.

    Attributes:
        experts: routed experts a layer. top_k: of them, a token's. layers: all layers, dense ones too.
        moe_layers: the numbers of those with experts. name: for messages.
    """

    experts: int | None = None
    top_k: int | None = None
    layers: int | None = None
    moe_layers: tuple[int, ...] | None = None
    name: str = "the model"

    @classmethod
    def of(cls, model: Model) -> ModelShape:
        """The sizes of a model's spec."""
        moe = model.moe
        return cls(moe.experts, moe.computed_top_k, model.layers, model.moe_layers, model.name)

    def learned(self, source: str, field: str, experts: int | None = None, top_k: int | None = None) -> ModelShape:
        """The sizes with what a file says of itself.

        Raises:
            InputError: it says otherwise than the model, or nothing that a model can be.
        """
        said, most = {"experts": experts, "top_k": top_k}, {"experts": MAX_EXPERTS, "top_k": MAX_TOP_K}
        words = {"experts": "experts a layer", "top_k": "experts a token"}
        for name, value in said.items():
            known = getattr(self, name)
            if value is not None and not 1 <= value <= most[name]:
                raise InputError(source, field, f"says {value} {words[name]}", f"give 1 to {most[name]}")
            if value is not None and known is not None and value != known:
                raise InputError(
                    source, field, f"says {value} {words[name]}, but {self.name} has {known}",
                    "give the model that was recorded with `model`, or none",
                )  # fmt: skip
        return replace(self, experts=experts or self.experts, top_k=top_k or self.top_k)
