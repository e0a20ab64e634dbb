# Two commands: `make demo` shows a world model at work, `make test` shows that it is sound.
BIN := .venv/bin
PACKAGES := scd_world envs/scd_envs envs/lerobot_env_scd_world policies/scd_policies datasets/scd_datasets

.PHONY: help demo test test-fast lint docs format lock setup

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

demo: setup  ## see it: the PushT world beside its simulator, then a pendulum's world learned from nothing
	$(BIN)/scd-demo

test: setup  ## trust it: all tests, and which twenty took longest
	$(BIN)/python -m pytest --durations=20 --numprocesses=logical --maxprocesses=8 --dist=worksteal

test-fast: setup  ## the tests that are not marked slow
	$(BIN)/python -m pytest -m "not slow"

lint: setup  ## rules, layout and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) recipes

docs: setup  ## the documentation as pages, in site/
	@$(BIN)/python -c "import mkdocs, mkdocstrings, latex2mathml" 2>/dev/null || $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: setup  ## lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## newest versions that the bounds in setup.py (and so LeRobot's) allow
	$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --extra pusht --extra sb3 --extra test --upgrade setup.py --output-file requirements.lock

setup:
	@tools/setup.sh
