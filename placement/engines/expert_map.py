"""Which experts every GPU holds, whatever engine says so: what the files of all engines are made from and read as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from placement.errors import InputError
from placement.problem.arrays import EMPTY
from specs.model import Model

#: [gpus][slots] logical experts of one layer.
Row = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ModelLayers:
    """How a model's layers are numbered, which engines do differently.

    Attributes:
        hidden: Hidden layers, dense ones counted; layers of a next-token module have indices from here on.
        moe: The model's own indices of its MoE layers, ascending.
        experts: [moe] logical experts of each.
    """

    hidden: int
    moe: tuple[int, ...]
    experts: tuple[int, ...]

    @classmethod
    def of(cls, model: Model) -> ModelLayers:
        """The numbering of a model."""
        return cls(model.whole_layers, model.moe_layers, tuple(moe.experts for moe in model.moes))

    def one_size(self, engine: str) -> int:
        """The number of experts of every MoE layer.

        Raises:
            InputError: Layers differ, which the engine's file can't say.
        """
        if len(set(self.experts)) > 1:
            raise InputError(
                engine, "", f"has one number of experts for all layers, this model {min(self.experts)} to "
                f"{max(self.experts)}", "serve the model with an engine whose file has its own number in each layer",
            )  # fmt: skip
        return self.experts[0]


@dataclass(frozen=True)
class ExpertMap:
    """The experts of every MoE layer on every GPU.

    Attributes:
        layers: The model's own index of each row's layer, ascending, dense layers counted.
        rows: [layers][gpus][slots] logical experts. GPUs of a layer, and layers, may differ in their slots.
    """

    layers: tuple[int, ...]
    rows: tuple[Row, ...]

    @classmethod
    def from_flat(cls, layers: Sequence[int], flat: Sequence[Sequence[int]], gpus: int, source: str) -> ExpertMap:
        """The map of [layers][slots] logical experts, GPU = slot // (slots / gpus).

        Raises:
            InputError: Slots do not divide over the GPUs.
        """
        rows = []
        for layer, row in zip(layers, flat, strict=True):
            if not row or len(row) % gpus:
                raise InputError(
                    source, f"layer {layer}", f"has {len(row)} slots, which do not divide over {gpus} GPUs",
                    "give the file of a deployment of this size",
                )  # fmt: skip
            width = len(row) // gpus
            rows.append(tuple(tuple(row[gpu * width : (gpu + 1) * width]) for gpu in range(gpus)))
        return cls(tuple(layers), tuple(rows))

    @property
    def gpus(self) -> int:
        return len(self.rows[0])

    def flat(self, i: int) -> tuple[int, ...]:
        """[slots] the experts of the i-th row, GPU after GPU."""
        return tuple(expert for held in self.rows[i] for expert in held)

    def width(self, i: int) -> int | None:
        """Slots of a GPU in the i-th row; None where GPUs differ."""
        sizes = {len(held) for held in self.rows[i]}
        return sizes.pop() if len(sizes) == 1 else None

    def check(self, model: ModelLayers, source: str) -> None:
        """Whether the model can be served from the map.

        Raises:
            InputError: It has other layers, names an expert that is not there, or holds one nowhere.
        """
        if self.layers != model.moe:
            raise InputError(
                source, "", f"has {len(self.layers)} MoE layers, the model {len(model.moe)}", "use a map of this model"
            )
        for i, (layer, experts) in enumerate(zip(self.layers, model.experts, strict=True)):
            held = set(self.flat(i))
            if EMPTY in held:
                raise InputError(
                    source, f"layer {layer}", "has slots of GPUs that have failed, and an engine starts on all GPUs",
                    "plan for the GPUs that are left",
                )  # fmt: skip
            wrong = [expert for expert in held if not 0 <= expert < experts]
            if wrong:
                raise InputError(
                    source, f"layer {layer}", f"names expert {wrong[0]} of {experts}", "use a map of this model"
                )
            missing = set(range(experts)) - held
            if missing:
                raise InputError(
                    source, f"layer {layer}", f"holds expert {min(missing)} nowhere", "give every expert a slot"
                )

    def first_difference(self, other: ExpertMap) -> str:
        """What a GPU holds here and not in `other`, in words; "" where every GPU holds the same, in whatever order."""
        if self.gpus != other.gpus:
            return f"{self.gpus} GPUs, not {other.gpus}"
        if self.layers != other.layers:
            return f"{len(self.layers)} layers, not {len(other.layers)}"
        for layer, mine, its in zip(self.layers, self.rows, other.rows, strict=True):
            for gpu, (held, wanted) in enumerate(zip(mine, its, strict=True)):
                if sorted(held) != sorted(wanted):
                    return f"layer {layer}, GPU {gpu}: holds experts {_listed(held)}, not {_listed(wanted)}"
        return ""

    def without_repeats(self) -> tuple[ExpertMap, int]:
        """The map without second copies of an expert on one GPU, and how many there were: what fills slots up."""
        rows = tuple(tuple(tuple(dict.fromkeys(held)) for held in row) for row in self.rows)
        slots = [sum(len(held) for row in each for held in row) for each in (self.rows, rows)]
        return ExpertMap(self.layers, rows), slots[0] - slots[1]

    def filled(self, width: int | None, engine: str) -> ExpertMap:
        """The map with equally many slots on every GPU, as an engine demands.

        A free slot takes a second copy of an expert that lies on this GPU alone: whichever copy serves a token, it is
        served here, so that no load and no byte changes.

        Args:
            width: Slots of every GPU; None: the most that any GPU has.
            engine: For messages.

        Raises:
            InputError: A GPU with free slots has no such expert.
        """
        most = max(len(held) for row in self.rows for held in row)
        width = width or most
        if most > width:
            raise InputError(engine, "", f"has {width} slots a GPU, the map up to {most}", "plan with fewer replicas")
        rows = []
        for layer, row in zip(self.layers, self.rows, strict=True):
            copies = Counter(expert for held in row for expert in set(held))
            made = []
            for gpu, held in enumerate(row):
                alone = [expert for expert in held if copies[expert] == 1]
                if len(held) < width and not alone:
                    raise InputError(
                        engine, f"layer {layer}", f"GPU {gpu} has {width - len(held)} slots less than others, and no "
                        "expert of its own to fill them with", "plan with the same slots on every GPU",
                    )  # fmt: skip
                made.append((*held, *(alone[j % len(alone)] for j in range(width - len(held)))))
            rows.append(tuple(made))
        return ExpertMap(self.layers, tuple(rows))


def in_order(experts: int, slots: int) -> tuple[int, ...]:
    """[slots] the placement that engines start with: experts in their order, and again from the first."""
    return tuple(slot % experts for slot in range(slots))


def _listed(held: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(held)[:12]))
    return shown + (f" and {len(held) - 12} more" if len(held) > 12 else "")
