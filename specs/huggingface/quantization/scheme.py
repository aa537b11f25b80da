"""What a checkpoint's statement says, whatever its format: which modules have which type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from specs.fields import DataType
from specs.huggingface.quantization.patterns import Patterns


@dataclass(frozen=True)
class Format:
    """How a group of modules is stored and multiplied.

    Attributes:
        weights: their type; None: the checkpoint's own, unquantized.
        activations: type that the matrix units multiply in; None: the checkpoint's own.
        block: weights come in blocks of this many, which a GPU's share must be a multiple of.
    """

    weights: DataType | None = None
    activations: DataType | None = None
    block: int = 1


WIDE = Format()


@dataclass(frozen=True)
class Group:
    """Modules of one format.

    Attributes:
        format: of the modules.
        patterns: which they are; None: all.
        experts_only: only routed experts among them.
    """

    format: Format
    patterns: Patterns | None = None
    experts_only: bool = False


@dataclass(frozen=True)
class Scheme:
    """The whole statement.

    Attributes:
        groups: the first that names a module decides; a module of no group stays as it is.
        kv_cache: type of the KV cache; None: the checkpoint's own.
    """

    groups: tuple[Group, ...] = ()
    kv_cache: DataType | None = None

    def format_of(self, paths: Sequence[str], experts: bool = False) -> Format:
        """The format of the module with these paths.

        Args:
            paths: names that it may have.
            experts: whether it is of the routed experts.
        """
        for group in self.groups:
            if group.experts_only and not experts:
                continue
            if group.patterns is None or group.patterns.match(paths):
                return group.format
        return WIDE

    @property
    def is_float8(self) -> bool:
        """Whether everything that is quantized is 8-bit floating point."""
        formats = {group.format.weights for group in self.groups if group.format.weights is not None}
        return formats == {"fp8"}

    def with_experts(self, stored: Format) -> Scheme:
        """The same with another format of the experts."""
        return replace(self, groups=(Group(stored, experts_only=True), *self.groups))
