"""Which experts a transformers model uses: caught where its router's choice is handed to the experts.

In transformers 5 nearly every architecture has a module `experts` that is called with (hidden [T, H], indices [T, k],
weights [T, k]), whatever its router does before: groups, biases, hashes. So the indices are those that are used, and
nothing is derived from logits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError


@dataclass(frozen=True)
class Shape:
    """What the MoE layers of a model have in common.

    Attributes:
        layers: their indices in the model. experts: logical experts. top_k: experts of a token.
    """

    layers: tuple[int, ...]
    experts: int
    top_k: int


@dataclass(frozen=True)
class Caught:
    """Routing of the tokens of one forward pass.

    Attributes:
        shape: of the model. ids: [moe_layers, tokens, k]. weights: the same, or None where the model has none.
    """

    shape: Shape
    ids: NDArray[Any]
    weights: NDArray[Any] | None


class RoutingHooks:
    """Listens to a model's experts while it is entered; `take` gives what the last forward pass used."""

    def __init__(self, model: Any, source: str) -> None:
        """Args:
        model: a transformers model. source: names it in messages.
        """
        self._source = source
        self._modules = {name: module for name, module in model.named_modules() if _may_be_experts(name, module)}
        self._calls: dict[str, list[tuple[Any, Any]]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name, module in self._modules.items():
            hook = _listener(self._calls, name)
            self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def take(self, real: NDArray[np.bool_]) -> Caught:
        """The routing of the last forward pass.

        Args:
            real: [sequences, positions] which tokens are not padding; padding is left out.

        Raises:
            InputError: the model's routing can't be read there, or a trace has no room for it.
        """
        calls = {name: self._calls[name] for name in sorted(self._calls, key=_numbers)}
        self._calls.clear()
        if not calls:
            raise self._refusal("has no experts whose routing can be recorded", "record a mixture-of-experts model")
        keep = real.reshape(-1)
        shapes, ids, weights = [], [], []
        for name, found in calls.items():
            used, weight = self._only(name, found, len(keep))
            experts = _experts_of(self._modules[name])
            self._check(name, used, experts)
            shapes.append((experts, used.shape[1]))
            ids.append(used[keep].astype(np.min_scalar_type(max(0, experts - 1))))
            weights.append(None if weight is None else weight[keep])
        if len(set(shapes)) > 1:
            kinds = " and ".join(f"top-{k} of {experts}" for experts, k in sorted(set(shapes)))
            raise self._refusal(f"has layers of {kinds} experts", "a trace holds layers of one kind")
        shape = Shape(tuple((_numbers(name) or [0])[0] for name in calls), *shapes[0])
        told = [weight for weight in weights if weight is not None]
        return Caught(shape, np.stack(ids), np.stack(told).astype(np.float16) if len(told) == len(ids) else None)

    def _only(self, name: str, found: list[tuple[Any, Any]], tokens: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """(ids, weights) of a layer that was called once, with a row a token."""
        kind = type(self._modules[name]).__name__
        if len(found) > 1:
            raise self._refusal(f"runs its layer {name} {len(found)} times a pass", "such models are not recorded")
        ids, weights = found[0]
        if ids is None or len(ids) != tokens:
            problem = f"hands its experts ({kind}, {name}) no indices of every token"
            raise self._refusal(problem, "a quantized checkpoint may, without its quantization")
        values = None if weights is None else weights.detach().float().cpu().numpy()
        return ids.detach().cpu().numpy(), values

    def _check(self, name: str, ids: NDArray[Any], experts: int) -> None:
        if ids.min() < 0 or ids.max() >= experts:
            other = ids[(ids < 0) | (ids >= experts)][0]
            problem = f"uses expert {other} of {experts} in {name}: it computes nothing, or is on another rank"
            raise self._refusal(problem, "traces hold experts with weights alone, on one process")
        ordered = np.sort(ids, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise self._refusal(f"uses an expert twice for a token in {name}", "such models are not recorded")

    def _refusal(self, problem: str, mend: str) -> InputError:
        return InputError(self._source, "", problem, mend)


def _may_be_experts(name: str, module: Any) -> bool:
    """Whether a module may be called with indices. Those inside another one's experts are single experts."""
    *outer, own = name.split(".")
    return (own == "experts" or type(module).__name__.endswith("Experts")) and "experts" not in outer


def _listener(calls: dict[str, list[tuple[Any, Any]]], name: str) -> Any:
    """A hook that keeps what a module is called with: (indices, weights), each None where there are none."""

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        flat = [each for each in (*args, *kwargs.values()) if getattr(each, "ndim", 0) == 2]
        ids = next((each for each in flat if "int" in str(each.dtype)), None)
        same = [each for each in flat if ids is not None and each.is_floating_point() and each.shape == ids.shape]
        calls.setdefault(name, []).append((ids, same[-1] if same else None))

    return hook


def _experts_of(module: Any) -> int:
    """Experts with weights of their own in a module: as it says, or else as its weights [experts, ...] have them."""
    for attribute in ("num_routed_experts", "num_experts"):
        said = getattr(module, attribute, None)
        if isinstance(said, int):
            return said
    stacked = [parameter.shape[0] for parameter in module.parameters() if parameter.ndim == 3]
    return int(min(stacked, default=sum(1 for _ in module.children())))


def _numbers(name: str) -> list[int]:
    """The numbers in a module's name, by which layers are in order."""
    return [int(number) for number in re.findall(r"(?<![^.])\d+(?![^.])", name)]
