# Two commands: `make demo` shows a world model at work, `make test` shows that it is sound.
BIN := .venv/bin

.PHONY: demo test lint format lock

demo: setup
	$(BIN)/scd-demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Newest versions that the bounds in setup.py (and so lerobot's) allow.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --extra pusht --extra sb3 --extra test --upgrade setup.py --output-file requirements.lock

.PHONY: setup
setup:
	@tools/setup.sh
