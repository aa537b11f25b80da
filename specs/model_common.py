"""What both forms of a model say: names and widths, data types, published parameter counts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from specs.fields import Count, DataType, Flag, Name, Positive, Spec, Text, Width


class DataTypes(Spec):
    """What each part is stored, computed and sent in; a block's own `types` differ from them by projection."""

    attention: DataType = "bf16"
    """Weights of attention and other mixers."""
    dense: DataType = "bf16"
    """Weights of dense blocks."""
    shared: DataType | None = None
    """Shared experts; as `dense` where it is not given."""
    experts: DataType = "bf16"
    """Weights of routed experts."""
    embedding: DataType = "bf16"
    """Embedding and output head."""
    kv_cache: DataType = "bf16"
    """The KV cache."""
    state: DataType = "fp32"
    """States of linear attention and state-space layers."""
    compute: DataType | None = None
    """What the matrix units multiply expert activations in; unset: what the engine runs such experts in, else bf16."""
    dispatch: DataType = "bf16"
    """Tokens on their way to experts."""
    combine: DataType = "bf16"
    """Experts' outputs on their way back."""
    block: Annotated[int, Field(ge=1, le=65_536, strict=True)] = 1
    """Weights come in blocks of this many, with one scale each: a GPU's share of a width is a multiple of it."""

    @property
    def multiplied(self) -> DataType:
        """`compute`; what no engine is asked about multiplies in 16 bits."""
        return self.compute or "bf16"


class Published(Spec):
    """Parameter counts as published, in billions, with their source; tests hold the computed counts against them."""

    total_b: Positive
    """All parameters, in billions."""
    active_b: Positive | None = None
    """Parameters active for a token, in billions."""
    active_counts_embedding: Flag = True
    """What active_b counts: some sources leave out the input embedding (looked up, not multiplied), some the output
    head as well."""
    active_counts_head: Flag = True
    """Whether active_b counts the output head."""
    active_rounding_b: Positive | None = None
    """Half a unit of active_b's last digit; given only where no figure exact to 1% is published."""
    source: Text
    """Who published the counts, and where."""


class Common(Spec):
    """What both forms of a model say."""

    name: Name
    """What it is called on screens and in plans."""
    summary: Text = ""
    """One line about it."""
    hidden: Width
    """Width of the hidden state."""
    vocabulary: Count
    """Tokens of the vocabulary."""
    streams: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    """Residual streams between blocks (hyper-connections); 1: the usual residual."""
    tied_embedding: Flag = False
    """The output head is the input embedding's matrix."""
    types: DataTypes = DataTypes()
    """Data types."""
    published: Published | None = None
    """Published counts that the computed ones are held against."""
    context: Count | None = None
    """Longest sequence in tokens."""
    left_out: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Parts of the checkpoint that are not planned (vision tower, next-token-prediction modules)."""
