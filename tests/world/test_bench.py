"""A benchmark counts what it says it counts."""

from __future__ import annotations

import json

import pytest

from scd_world.bench import bench, count_work, plain_schema, random_model
from scd_world.evaluate_config import BenchConfig
from scd_world.model_config import ModelConfig

TINY = ModelConfig(width=16, heads=2, encoder_layers=2, decoder_layers=1, patch=8, window=4)
SMALL = {"model": TINY, "height": 16, "width": 24, "seconds": 0.01, "device": "cpu"}


@pytest.mark.parametrize("num_steps", [1, 4])
def test_one_encoder_pass_and_num_steps_decoder_passes(num_steps):
    model = random_model(TINY, plain_schema(BenchConfig(**SMALL)))
    passes, _, _ = count_work(model, 3, num_steps)
    assert passes == {"encoder": 1, "decoder": num_steps}


def test_work_grows_with_rows_and_denoising_steps_as_it_should():
    model = random_model(TINY, plain_schema(BenchConfig(**SMALL)))
    flops = {(b, n): count_work(model, b, n)[1] for b, n in [(1, 1), (2, 1), (1, 2), (1, 3)]}
    assert flops[2, 1] == 2 * flops[1, 1]
    assert flops[1, 3] - flops[1, 2] == flops[1, 2] - flops[1, 1] > 0


def test_bench_writes_a_table_and_json(slide_store, tmp_path, capsys):
    config = BenchConfig(
        **SMALL, num_steps=[1, 2], batch_sizes=[1, 2], store=str(slide_store), out=str(tmp_path)
    )
    bench(config)
    report = json.loads((tmp_path / "bench.json").read_text())
    assert [(r["batch"], r["num_steps"]) for r in report["steps"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(0 < r["p50_ms"] <= r["p95_ms"] for r in report["steps"])
    assert report["store"]["frames_per_s"]["from RAM"] > 0
    assert "1 + 2" in (tmp_path / "bench.md").read_text()
    assert "passes enc + dec" in capsys.readouterr().out
