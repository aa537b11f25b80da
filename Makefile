# `make solve` and `make test` set up all they need in .venv.
PYTHON ?= python3
VENV ?= .venv
SPEC ?= gpt_oss_120b_gb200_ib
PYTEST_WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: solve test lint types unit compare schema clean

solve: $(STAMP)
	@$(BIN)/python -m placement.solve --spec $(SPEC) --out plan.json

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS)

# The table of README.md.
compare: $(STAMP)
	@$(BIN)/python -m placement.compare --spec gpt_oss_120b_gb200_ib --spec gpt_oss_120b_gb200_ethernet \
		--spec deepseek_r1_gb200_ib --spec deepseek_v2_lite_h100_ib --spec dgx_a100_175b

schema: $(STAMP)
	$(BIN)/python -c "from placement.records.plan import schema_text; print(schema_text(), end='')" \
		> placement/records/schemas/plan.schema.json

clean:
	rm -rf $(VENV) plan.json

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11; run make with PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)
