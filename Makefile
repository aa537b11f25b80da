# `make solve` and `make test` set up all they need in .venv: solving needs less than testing.
PYTHON ?= python3
VENV ?= .venv
WHEEL ?= .venv-wheel
SPEC ?= gpt_oss_120b_gb200_ib
PYTEST_WORKERS ?= 2

BIN := $(VENV)/bin
SOLVE := $(VENV)/.solve
TEST := $(VENV)/.test
PIP := python -m pip install --quiet --disable-pip-version-check

.PHONY: solve test smoke lint types unit compare schema wheel-examples clean

solve: $(SOLVE)
	@$(BIN)/python -m placement.solve --spec $(SPEC) --out plan.json

test: lint types unit

# The essentials, in two minutes: a small solve, its verification, the scorer and the exact models against brute force.
smoke: $(TEST)
	@cd $(VENV) && bin/python ../docs/examples/own_trace.py && bin/python -m placement.verify plan.json \
		--trace "$$(bin/python -c 'import placement; print(placement.example_trace())')"
	@$(BIN)/python -m pytest tests/test_imports.py tests/problem tests/cost/test_moe_layer.py tests/cost/test_links.py \
		tests/solvers/test_exact.py -k "not seed or 0 or 1"

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST)
	$(BIN)/mypy

# A worker goes through its share in order, so that what a module's tests share is made once. Images that forbid
# bytecode files have every process of the tests compile the sources anew.
unit: $(TEST)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal

# Every strategy on the main scenarios.
compare: $(SOLVE)
	@$(BIN)/python -m placement.compare --spec gpt_oss_120b_gb200_ib --spec gpt_oss_120b_gb200_ethernet \
		--spec deepseek_r1_gb200_ib --spec deepseek_v2_lite_h100_ib --spec dgx_a100_175b

schema: $(SOLVE)
	$(BIN)/python -c "from placement.records.plan import schema_text; print(schema_text(), end='')" \
		> placement/records/schemas/plan.schema.json

# The examples of docs/api.md from a built wheel, away from the checkout.
wheel-examples:
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/$(PIP) build
	rm -rf build
	$(WHEEL)/bin/python -m build --wheel --outdir $(WHEEL)/dist . > $(WHEEL)/build.log 2>&1 || { cat $(WHEEL)/build.log; exit 1; }
	$(WHEEL)/bin/$(PIP) $(WHEEL)/dist/*.whl
	for name in plan_scenario own_trace migrate; do \
		cp docs/examples/$$name.py docs/examples/tiny_moe.yaml $(WHEEL)/ && (cd $(WHEEL) && bin/python $$name.py) || exit 1; \
	done

clean:
	rm -rf $(VENV) $(WHEEL) plan.json build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11; run make with PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(SOLVE): pyproject.toml | $(VENV)/bin/python
	$(BIN)/$(PIP) --editable .
	@touch $(SOLVE)

$(TEST): pyproject.toml | $(VENV)/bin/python
	$(BIN)/$(PIP) --editable '.[dev]'
	@touch $(SOLVE) $(TEST)
