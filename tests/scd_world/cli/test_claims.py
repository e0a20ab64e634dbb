"""Every command that writes into out= refuses a folder that holds somebody's files, before any work."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import scd_world
from scd_world.benchmark.benchmark import bench
from scd_world.benchmark.config import BenchConfig
from scd_world.demo.config import DemoConfig
from scd_world.demo.demo import demo
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.evaluate import evaluate
from scd_world.ranking.config import RankConfig
from scd_world.ranking.rank import rank

POLICIES = [{"name": name, "policy": "random_walk"} for name in ("one", "other")]


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder with a report, a figure and a note that no command of ours has written."""
    for name in ("report.md", "report.json", "curves.png", "bench.json"):
        (tmp_path / "mine" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text("[]")
    return tmp_path / "mine"


@pytest.mark.parametrize("command", ["evaluate", "bench", "rank", "demo"])
def test_a_folder_with_somebodys_files_is_refused_and_stays(world, mine, tmp_path, command):
    out, folder = str(mine), str(world.save(tmp_path / "world"))
    run = {
        "evaluate": lambda: evaluate(EvaluateConfig(world=folder, out=out)),
        "bench": lambda: bench(BenchConfig(out=out, seconds=0.01)),
        "rank": lambda: rank(RankConfig(world=folder, policies=POLICIES, out=out, only_sides=["world"])),
        "demo": lambda: demo(DemoConfig(out=out)),
    }
    refusal = rf"out=\S+mine holds .*report\.json.*, which scd-{command} has not written"
    with pytest.raises(ValueError, match=refusal):
        run[command]()
    assert {file.read_text() for file in mine.iterdir()} == {"[]"}


def test_no_command_makes_its_folder_without_claiming_it():
    """A room's main function that makes `out` by itself would write over what is there."""
    root = Path(scd_world.__file__).parent
    for file in root.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        made = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("out.mkdir", "self.path.mkdir")
        ]
        assert not made or file.name in ("output_folder.py", "run_folder.py"), (
            f"{file} makes an output folder"
        )
