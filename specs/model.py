"""A mixture-of-experts transformer by its dimensions: a list of blocks, data types, published parameter counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from specs.blocks.attention import GqaAttention
from specs.blocks.ffn import DenseFfn, Moe
from specs.blocks.latent import CompressedAttention, MlaAttention
from specs.blocks.recurrent import GatedDelta, KimiDelta, Lightning, Mamba, Mamba2, ShortConv
from specs.fields import (
    MAX_LAYERS,
    MAX_PARAMETERS,
    Count,
    DataType,
    Flag,
    LayerIndex,
    Layers,
    Name,
    Positive,
    Spec,
    Text,
    Width,
)

AnyMixer = Annotated[
    GqaAttention | MlaAttention | CompressedAttention | GatedDelta | KimiDelta | Lightning | Mamba2 | Mamba | ShortConv,
    Field(discriminator="kind"),
]
Ffn = Annotated[DenseFfn | Moe, Field(discriminator="kind")]


class SlidingWindow(Spec):
    """Layers whose index modulo `period` is in `layers` attend only to the last `window` tokens."""

    window: Count
    """Tokens that a query sees."""
    period: Layers = 1
    """Layers after which the pattern repeats."""
    layers: Annotated[tuple[LayerIndex, ...], Field(min_length=1, max_length=MAX_LAYERS)] = (0,)
    """Which layers of a period slide."""

    @model_validator(mode="after")
    def _layers_are_in_the_period(self) -> SlidingWindow:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("layers names a layer twice; name each once")
        if max(self.layers) >= self.period:
            raise ValueError(f"layers names {max(self.layers)}, but period is {self.period}; stay below the period")
        return self


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
    compute: DataType = "bf16"
    """What the matrix units multiply expert activations in."""
    dispatch: DataType = "bf16"
    """Tokens on their way to experts."""
    combine: DataType = "bf16"
    """Experts' outputs on their way back."""
    block: Annotated[int, Field(ge=1, le=65_536, strict=True)] = 1
    """Weights come in blocks of this many, with one scale each: a GPU's share of a width is a multiple of it."""


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


class Block(Spec):
    """One block: a mixer, then a feed-forward block, by their names in the model; either may be absent."""

    mixer: Name | None = None
    """Name of its mixer."""
    ffn: Name | None = None
    """Name of its feed-forward block."""

    @model_validator(mode="after")
    def _is_something(self) -> Block:
        if self.mixer is None and self.ffn is None:
            raise ValueError("a block has neither mixer nor ffn; name one")
        return self


class BlockRun(Spec):
    """Blocks that follow each other, `repeat` times."""

    repeat: Layers = 1
    """How often they follow each other."""
    blocks: Annotated[tuple[Block, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    """The blocks, in order."""


class _Common(Spec):
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


class Uniform(_Common):
    """The short form of a model whose layers have one attention: what most models need."""

    layers: Layers
    """Number of layers."""
    attention: Annotated[GqaAttention | MlaAttention, Field(discriminator="kind")]
    """Attention of every layer."""
    moe: Moe
    """Experts of every MoE layer."""
    dense_layers: Annotated[tuple[LayerIndex, ...], Field(max_length=MAX_LAYERS)] = ()
    """Indices of the layers whose feed-forward block is dense."""
    dense_width: Width | None = None
    """Width of a dense layer."""
    sliding: SlidingWindow | None = None
    """Layers that see a window alone."""

    @model_validator(mode="after")
    def _layers_fit(self) -> Uniform:
        if len(set(self.dense_layers)) != len(self.dense_layers):
            raise ValueError("dense_layers names a layer twice; name each once")
        if self.dense_layers and max(self.dense_layers) >= self.layers:
            raise ValueError(
                f"dense_layers names layer {max(self.dense_layers)}, but layers is {self.layers}; count from 0"
            )
        if len(self.dense_layers) == self.layers:
            raise ValueError("every layer is dense: this is no mixture-of-experts model; leave MoE layers")
        if self.dense_layers and self.dense_width is None:
            raise ValueError("dense_layers needs dense_width; add it")
        return self

    def blocks(self) -> dict[str, Any]:
        """The same as fields of Model."""
        mixers: dict[str, Any] = {"full": self.attention}
        if self.sliding is not None:
            mixers["sliding"] = self.attention.model_copy(update={"window": self.sliding.window})
        ffns: dict[str, Any] = {"moe": self.moe}
        if self.dense_layers and self.dense_width is not None:
            ffns["dense"] = DenseFfn(kind="dense", width=self.dense_width, gated=self.moe.gated)
        dense, sliding = set(self.dense_layers), self.sliding
        blocks = []
        for i in range(self.layers):
            slides = sliding is not None and i % sliding.period in sliding.layers
            blocks.append(Block(mixer="sliding" if slides else "full", ffn="dense" if i in dense else "moe"))
        used = {block.mixer for block in blocks}
        return {"mixers": {k: v for k, v in mixers.items() if k in used}, "ffns": ffns, "blocks": runs_of(blocks)}


#: Fields of the short form alone, and of the long form alone.
_SHORT_ORDER = tuple(
    dict.fromkeys(
        (
            "name",
            "summary",
            "layers",
            "hidden",
            "vocabulary",
            "attention",
            "moe",
            "dense_layers",
            "dense_width",
            "sliding",
            *Uniform.model_fields,
        )
    )
)
_SHORT, _LONG = set(Uniform.model_fields) - set(_Common.model_fields), {"mixers", "ffns", "blocks"}


class Model(_Common):
    """A transformer with mixture-of-experts layers, by its true dimensions: named mixers and feed-forward blocks, and
    the list of blocks that is made of them. A model of one attention may be written in the short form (`Uniform`)."""

    forms: ClassVar[tuple[type[Spec], ...]] = (Uniform,)

    mixers: Annotated[dict[Name, AnyMixer], Field(min_length=1, max_length=MAX_LAYERS)]
    """Kinds of attention and other mixers, by a name of your choice."""
    ffns: Annotated[dict[Name, Ffn], Field(min_length=1, max_length=MAX_LAYERS)]
    """Kinds of feed-forward blocks, by a name of your choice."""
    blocks: Annotated[tuple[BlockRun, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    """All layers, as runs of blocks that repeat."""
    blocks_per_layer: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    """Blocks that the model's own numbering counts as one layer (LongCat: two)."""

    @model_validator(mode="before")
    @classmethod
    def _from_the_short_form(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not _SHORT & set(data):
            return data
        if _LONG & set(data):
            field = min(_SHORT & set(data))
            raise ValueError(f"{field} is of the short form, mixers, ffns and blocks of the long; use one form")
        short = Uniform.model_validate(data)
        return {name: getattr(short, name) for name in _Common.model_fields} | short.blocks()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Either form."""
        reference = handler(core_schema)
        own = handler.resolve_ref_schema(reference)
        long, short = dict(own), handler(Uniform.__pydantic_core_schema__)
        own.clear()
        own.update(title="Model", anyOf=[long, short])
        return reference

    @model_serializer(mode="wrap")
    def _in_the_short_form(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In the short form where the model has one: what people wrote, and what they change by path."""
        short = self.short_form()
        if short is None:
            long: dict[str, Any] = handler(self)
            return long
        written = short.model_dump(
            mode=info.mode,
            include=info.include,  # type: ignore[arg-type]
            exclude=info.exclude,  # type: ignore[arg-type]
            exclude_defaults=info.exclude_defaults,
        )
        return {name: written[name] for name in _SHORT_ORDER if name in written}

    def short_form(self) -> Uniform | None:
        """The model in the short form, or None where that can't say it."""
        one = self.mixers.get("full") or self.mixers.get("sliding")
        moe, dense = self.ffns.get("moe"), self.ffns.get("dense")
        if not isinstance(one, GqaAttention | MlaAttention) or not isinstance(moe, Moe) or self.blocks_per_layer > 1:
            return None
        slides = [i for i, block in enumerate(self.layout) if block.mixer == "sliding"]
        period = next(p for p in range(1, self.layers + 1) if _repeats(slides, p, self.layers))
        window = getattr(self.mixers.get("sliding"), "window", None)
        try:
            short = Uniform(
                **{name: getattr(self, name) for name in _Common.model_fields},
                layers=self.layers,
                attention=one if "full" in self.mixers else one.model_copy(update={"window": None}),
                moe=moe,
                dense_layers=tuple(i for i, block in enumerate(self.layout) if block.ffn == "dense"),
                dense_width=dense.width if isinstance(dense, DenseFfn) else None,
                sliding=SlidingWindow(window=window, period=period, layers=tuple(i for i in slides if i < period))
                if window and slides
                else None,
            )
        except ValueError:
            return None
        same = short.blocks()
        return short if all(getattr(self, name) == same[name] for name in sorted(_LONG)) else None

    @model_validator(mode="after")
    def _blocks_fit(self) -> Model:
        for word, known in (("mixer", self.mixers), ("ffn", self.ffns)):
            for block in self.kinds:
                name = getattr(block, word)
                if name is not None and name not in known:
                    raise ValueError(f"blocks name {word} {name!r}; {word}s has {', '.join(known)}")
            unused = set(known) - {getattr(block, word) for block in self.kinds}
            if unused:
                raise ValueError(f"{word}s {', '.join(sorted(unused))} are in no block; remove them or add blocks")
        each = self.blocks_per_layer
        if self.layers % each:
            raise ValueError(f"blocks are {self.layers}, no multiple of blocks_per_layer {each}; change one of them")
        if len(set(self.moe_layers)) < len(self.moe_layers):
            raise ValueError("a layer has several blocks with experts; lower blocks_per_layer")
        if self.layers > MAX_LAYERS:
            raise ValueError(f"blocks are {self.layers} layers; at most {MAX_LAYERS} are planned")
        if not self.moe_blocks:
            raise ValueError("every layer is dense: this is no mixture-of-experts model; leave MoE layers")
        widest = max(
            max(ffn.experts * ffn.expert_width if isinstance(ffn, Moe) else 0, ffn.inner_width)
            for ffn in self.ffns.values()
        )
        if self.layers * self.hidden * widest > MAX_PARAMETERS:
            raise ValueError(
                f"layers x hidden x experts x expert_width is over {MAX_PARAMETERS:.0e} parameters; check the sizes"
            )
        return self

    @cached_property
    def layout(self) -> tuple[Block, ...]:
        """[layers] every block."""
        return tuple(block for run in self.blocks for _ in range(run.repeat) for block in run.blocks)

    @property
    def layers(self) -> int:
        """Number of blocks: what stages are cut from."""
        return len(self.layout)

    @property
    def whole_layers(self) -> int:
        """Layers as the model's own numbering counts them."""
        return self.layers // self.blocks_per_layer

    @cached_property
    def kinds(self) -> tuple[Block, ...]:
        """The distinct blocks, in the order of their first layer."""
        return tuple(dict.fromkeys(self.layout))

    @cached_property
    def kind_of_layer(self) -> tuple[int, ...]:
        """[layers] index of each block's kind."""
        place = {block: index for index, block in enumerate(self.kinds)}
        return tuple(place[block] for block in self.layout)

    def mixer_of(self, block: Block) -> AnyMixer | None:
        """The mixer of a block."""
        return None if block.mixer is None else self.mixers[block.mixer]

    def ffn_of(self, block: Block) -> Ffn | None:
        """The feed-forward block of a block."""
        return None if block.ffn is None else self.ffns[block.ffn]

    def moe_of(self, block: Block) -> Moe | None:
        """The experts of a block, or None where it has none."""
        ffn = self.ffn_of(block)
        return ffn if isinstance(ffn, Moe) else None

    @cached_property
    def moe_blocks(self) -> tuple[int, ...]:
        """Blocks that have experts, ascending."""
        return tuple(i for i, block in enumerate(self.layout) if self.moe_of(block) is not None)

    @cached_property
    def moe_layers(self) -> tuple[int, ...]:
        """The model's own indices of its MoE layers, ascending."""
        return tuple(i // self.blocks_per_layer for i in self.moe_blocks)

    @cached_property
    def moes(self) -> tuple[Moe, ...]:
        """[moe_layers] the experts of each MoE layer."""
        return tuple(moe for block in self.layout if (moe := self.moe_of(block)) is not None)

    @cached_property
    def moe_kinds(self) -> tuple[Moe, ...]:
        """The distinct experts among them."""
        return tuple(ffn for ffn in self.ffns.values() if isinstance(ffn, Moe))

    @cached_property
    def moe_block(self) -> Block:
        """The kind of MoE layer with the most experts; of equal ones the most frequent."""
        found = [self.layout[i] for i in self.moe_blocks]
        return max(dict.fromkeys(found), key=lambda block: (self.experts_of(block), found.count(block)))

    @property
    def moe(self) -> Moe:
        """The experts of `moe_block` (of all MoE layers, where they are alike)."""
        moe = self.moe_of(self.moe_block)
        if moe is None:
            raise ValueError(f"{self.name} has no experts")
        return moe

    def experts_of(self, block: Block) -> int:
        """Routed experts of a block; 0 where it has none."""
        moe = self.moe_of(block)
        return 0 if moe is None else moe.experts

    @cached_property
    def attention_kind(self) -> str:
        """The kind of attention by which measurements calibrate the model: of most layers that keep a KV cache."""
        kinds = [
            mixer.measured_as
            for block in self.layout
            if (mixer := self.mixer_of(block)) is not None and mixer.stored(1.0, 1).elements
        ]
        return max(kinds, key=kinds.count, default="none")


def _repeats(places: Sequence[int], period: int, length: int) -> bool:
    """Whether the places of a row of that length are those of its first `period` again and again."""
    first = {place for place in places if place < period}
    return set(places) == {place for place in range(length) if place % period in first}


def runs_of(blocks: list[Block]) -> tuple[BlockRun, ...]:
    """Blocks as runs: the shortest repeating pattern of each stretch, longest stretches first."""
    runs, start = [], 0
    while start < len(blocks):
        best = (1, 1)
        for period in range(1, min(16, len(blocks) - start) + 1):
            pattern, repeat = blocks[start : start + period], 1
            while blocks[start + repeat * period : start + (repeat + 1) * period] == pattern:
                repeat += 1
            if repeat * period > best[0] * best[1] and (repeat > 1 or period == 1):
                best = (repeat, period)
        repeat, period = best
        runs.append(BlockRun(repeat=repeat, blocks=tuple(blocks[start : start + period])))
        start += repeat * period
    return tuple(runs)
