"""A mixture-of-experts transformer by its dimensions: named mixers and feed-forward blocks, and the list of them."""

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
from specs.blocks.latent import MlaAttention
from specs.blocks.run import AnyMixer, Block, BlockRun, Ffn
from specs.fields import MAX_LAYERS, MAX_PARAMETERS, Name, Spec
from specs.model_common import Common
from specs.model_short import SlidingWindow, Uniform

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
_SHORT, _LONG = set(Uniform.model_fields) - set(Common.model_fields), {"mixers", "ffns", "blocks"}


class Model(Common):
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
        return {name: getattr(short, name) for name in Common.model_fields} | short.blocks()

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
                **{name: getattr(self, name) for name in Common.model_fields},
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
