"""One batch against single environments: each way to step is compared with the batch in its own round."""

from __future__ import annotations

import pytest

from scd_world.benchmark.async_envs import BATCHED, ONE, TUNED, USUAL, compare_async, compare_rounds, markdown
from scd_world.benchmark.config import BenchConfig


def test_a_busy_round_spoils_no_ratio():
    """The machine was three times as slow in the second round: for everybody."""
    rounds = {
        BATCHED: [(10.0, 20.0), (30.0, 20.0), (10.0, 20.0)],
        ONE: [(20.0, 30.0), (60.0, 30.0), (20.0, 30.0)],
        TUNED: [(40.0, 60.0), (120.0, 60.0), (40.0, 60.0)],
        USUAL: [(50.0, 80.0), (150.0, 80.0), (50.0, 80.0)],
    }
    found = compare_rounds(rounds)
    assert {name: row["batch_speedup"] for name, row in found.items()} == {
        BATCHED: 1.0,
        ONE: 2.0,
        TUNED: 4.0,
        USUAL: 5.0,
    }
    assert found[TUNED]["batch_cpu_ratio"] == 3.0
    assert found[BATCHED]["steps_per_s"] == 100.0
    assert "5.00 ×" in markdown({"rows": 8, "threads": 2, "precision": "fp32", **found})


@pytest.mark.slow
def test_it_runs_with_real_processes(world, tmp_path):
    found = compare_async(
        str(world.save(tmp_path / "world")), num_envs=2, seconds=0.05, device="cpu", precision="bf16"
    )
    assert all(row["steps_per_s"] > 0 and row["cpu_ms"] > 0 for row in map(found.get, (BATCHED, USUAL)))
    assert found[BATCHED]["batch_speedup"] == 1.0


def test_environments_need_a_world():
    with pytest.raises(ValueError, match="world="):
        BenchConfig(compare="async")
    with pytest.raises(ValueError, match="async"):
        BenchConfig(compare="sync", world="w")
