"""Random maps and models."""

from __future__ import annotations

from hypothesis import strategies as st

from placement.engines.expert_map import ExpertMap, ModelLayers


@st.composite
def layers(draw: st.DrawFn) -> ModelLayers:
    """A model: dense layers anywhere, MoE layers of one size."""
    hidden = draw(st.integers(1, 7))
    moe = draw(st.lists(st.integers(0, hidden - 1), min_size=1, max_size=hidden, unique=True).map(sorted))
    experts = draw(st.integers(2, 24))
    return ModelLayers(hidden, tuple(moe), (experts,) * len(moe))


@st.composite
def maps(draw: st.DrawFn, uneven: bool = False) -> tuple[ExpertMap, ModelLayers]:
    """A map that serves its model: every expert somewhere, none twice on a GPU; `uneven`: GPUs differ in slots."""
    model = draw(layers())
    experts = model.experts[0]
    gpus = draw(st.integers(1, 6))
    least = -(-experts // gpus)
    width = draw(st.integers(least, min(experts, least + 3)))
    rows = []
    for _ in model.moe:
        order = draw(st.permutations(range(experts)))
        held: list[list[int]] = [[] for _ in range(gpus)]
        for i, expert in enumerate(order):
            held[i % gpus].append(expert)
        for gpu in range(gpus):
            room = width - len(held[gpu])
            if uneven:
                room = draw(st.integers(0, room))
            others = draw(st.permutations([expert for expert in range(experts) if expert not in held[gpu]]))
            held[gpu] += others[:room]
        rows.append(tuple(tuple(draw(st.permutations(one))) for one in held))
    return ExpertMap(model.moe, tuple(rows)), model
