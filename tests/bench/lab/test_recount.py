"""The count that shares no code with the planner's agrees with it on every model of the catalog."""

import pytest

from bench.lab.memory.recount import cache_bytes, parameters
from placement.cost.memory.local import stored_bytes, total_of
from specs.loading import list_catalog, load_model
from specs.parameters import count_parameters


@pytest.mark.parametrize("name", [entry.name for entry in list_catalog("model")])
@pytest.mark.parametrize("context", [100, 5120])
def test_parameters_and_cache_agree(name: str, context: int) -> None:
    model = load_model(name)
    assert parameters(model) == pytest.approx(count_parameters(model).total, rel=0.01)
    counts = [model.layout.count(kind) for kind in model.kinds]
    assert cache_bytes(model, context) == pytest.approx(total_of(stored_bytes(model, context, 1), counts), rel=0.01)
