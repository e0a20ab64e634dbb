#!/usr/bin/env bash
# Makes .venv with Python 3.12 and the locked dependencies; does nothing where that is done already.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.installed
wanted=$(cat requirements.lock setup.py pyproject.toml | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

is_312() { [ -x "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; }

# A `python3.12` on the path may be pyenv's shim, which answers only where that version is switched on.
find_python() {
    local candidate
    for candidate in "$(command -v python3.12 || true)" "$(command -v python3 || true)" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python; do
        if is_312 "$candidate"; then echo "$candidate"; return; fi
    done
    if command -v uv >/dev/null; then uv python find 3.12 2>/dev/null && return; fi
    return 1
}

if ! is_312 .venv/bin/python; then
    if ! python=$(find_python); then
        echo "scd_world needs Python 3.12 (lerobot 0.6 does), and none was found here. Any of these brings it:" >&2
        echo "    uv python install 3.12      (uv: pip install uv)" >&2
        echo "    pyenv install 3.12" >&2
        echo "    sudo apt install python3.12 python3.12-venv" >&2
        echo "then run make again." >&2
        exit 1
    fi
    echo "· virtual environment with $("$python" --version) in .venv"
    if [ -e .venv ]; then  # of another Python, and perhaps somebody's own
        mv .venv ".venv.before.$(date +%Y%m%d%H%M%S)"
        echo "· what was in .venv is another Python's: it is kept beside it, as $(ls -d .venv.before.* | tail -1)"
    fi
    "$python" -m venv .venv
fi
echo "· installing the locked dependencies (several GB where torch brings CUDA)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
.venv/bin/uv pip install --quiet --python .venv/bin/python -r requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
# Where Python is told to write no bytecode, as in many containers, each command would compile torch anew, for five
# seconds: what the commands import is compiled here, once.
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -W ignore -c "
import accelerate, av, gymnasium, hydra, matplotlib.pyplot, pyarrow.parquet, safetensors.torch, tensorboard
import torch._dynamo, torch.utils.tensorboard, torchvision, zarr" >/dev/null 2>&1 || true
fi
echo "$wanted" > "$stamp"
