"""A benchmark counts what it says it counts."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace

import pytest
import torch

from scd_datasets.store.store import WindowStore
from scd_envs.vector_env import WorldVectorEnv
from scd_world.benchmark.benchmark import bench, of_windows, plain_schema
from scd_world.benchmark.config import BenchConfig
from scd_world.benchmark.cost import count_cost, count_decoding, count_step, peak_bytes
from scd_world.benchmark.environment import without_model
from scd_world.benchmark.figures import pareto, plot_quality
from scd_world.benchmark.quality import markdown, quality
from scd_world.benchmark.stepping import build_models, timing
from scd_world.benchmark.timing import FEWEST, Turn, dummy_inputs, dummy_state, interleave, step_turn
from scd_world.benchmark.training import count_update
from scd_world.codec.codec import Identity, make_codec
from scd_world.codec.config import CodecConfig
from scd_world.model.config import ModelConfig
from scd_world.model.filter import OPEN, WHOLE
from scd_world.prior.config import PriorConfig
from scd_world.prior.uncertainty import MEMBERS
from tests.conftest import CONFIG, make_model

TINY = ModelConfig(width=16, heads=2, encoder_layers=2, decoder_layers=1, patch=8, window=4, head="patch")
LINEAR = PriorConfig(layers=0)
SMALL = {"model": TINY, "prior": LINEAR, "height": 16, "width": 24, "seconds": 0.01, "device": "cpu"}
CPU = torch.device("cpu")


def models(*baselines: str, fusion: str = "one_way", **changes):
    schema = plain_schema(BenchConfig(**SMALL | changes))
    return build_models(replace(TINY, fusion=fusion), LINEAR, baselines, schema, CPU)


def block(queries: int, keys: int, D: int, conditions: int = 1) -> int:
    """Operations of a transformer layer, by hand: qkv, out and a fourfold MLP per token, attention, adaLN."""
    return 2 * queries * 12 * D * D + 4 * queries * keys * D + 2 * conditions * 6 * D * D


def mlp(sizes: list[int], rows: int = 1) -> int:
    return sum(2 * rows * a * b for a, b in itertools.pairwise(sizes))


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["concat", "one_way"])
def test_operations_are_those_of_a_hand_count(fusion):
    scd, dense = models("causal_dit", fusion=fusion).values()
    S, A, D, N, W, T = 18, 2, 16, 6, 4, 5
    M, P = N + 1, 3 * 8 * 8
    linear = 2 * S * (2 * S + 2 * A + 1)
    state_action = [(S + A) * (1 + 2 * TINY.fourier_octaves), 2 * D, 2 * D, D]
    with_deltas = [state_action[0] + 2 * S, *state_action[1:]]
    heads = mlp([D, 2 * D, S + 2])
    into = mlp([P, D], N)
    head = mlp([D, 2 * D, P + 64], N) + mlp([D, 2 * D])
    time = mlp([128, D, D])
    encoder = into + 2 * mlp(with_deltas) + 2 * block(M, W * M, D)
    once, decoder = 2 * mlp(state_action), into + time + head
    # The context is seen in the last layer, and goes no further: it has keys and values there.
    if fusion == "concat":  # it goes through the layers at each step
        decoder += block(N, M + N, D) + 2 * M * 3 * D * D
    else:  # or once
        once, decoder = once + 2 * M * 2 * D * D + 2 * 6 * D * D, decoder + block(N, M + N, D)
    ensemble = MEMBERS * linear  # its members, for the uncertainty
    assert count_cost(scd, 1, T).flops == linear + ensemble + encoder + heads + once + T * decoder
    read = into + 2 * mlp(with_deltas) + time + 3 * block(M, (W + 1) * M, D)
    denoised = into + 2 * mlp(state_action) + time + 3 * block(M, (W + 1) * M, D) + head
    assert count_cost(dense, 1, T).flops == linear + ensemble + read + heads + T * denoised


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 4])
def test_blocks_run_as_often_as_each_model_says(num_steps):
    passes = {
        n: count_cost(m, 3, num_steps).block_passes for n, m in models("causal_dit", "regression").items()
    }
    context = TINY.decoder_layers - 1  # its own pass through all layers of the decoder but the last
    assert passes["scd"] == 2 + context + num_steps
    assert passes["regression"] == 2 + context + 1
    assert passes["causal_dit"] == 3 * (1 + num_steps)
    (joined,) = models(fusion="concat").values()
    assert count_cost(joined, 3, num_steps).block_passes == 2 + num_steps


@pytest.mark.slow
def test_cost_grows_with_rows_and_denoising_steps_as_it_should():
    for model in models("causal_dit", "far_long", height=32, width=32).values():
        assert count_cost(model, 2, 1).flops == 2 * count_cost(model, 1, 1).flops
        assert count_cost(model, 1, 2).flops > count_cost(model, 1, 1).flops
        assert count_cost(model, 1, 4) == count_step(model, 1, 4)


def autoencoder(width: int = 8):
    changes = {"model": replace(TINY, patch=4), "codec": CodecConfig("autoencoder", width)}
    config = BenchConfig(**SMALL | changes | {"height": 32, "width": 48})
    return config, make_codec(config.codec, plain_schema(config))


def test_a_frames_cost_holds_its_decoding_counted_by_hand():
    config, codec = autoencoder()
    cells, w = 8 * 12, 8
    by_hand = 2 * cells * (9 * 3 * w + 4 * (9 * w * w + w * w) + 9 * w * 48)
    assert count_decoding(codec, 3) == 3 * by_hand
    assert count_decoding(Identity(codec.schema), 3) == 0
    (row,) = bench(replace(config, num_steps=[1], batch_sizes=[3], max_round_seconds=1e-12))["steps"]
    (model,) = build_models(config.model, LINEAR, (), codec.model_schema, CPU).values()
    assert row["gflop_per_frame"] == pytest.approx((count_cost(model, 1, 1).flops + by_hand) / 1e9)


def test_a_timed_step_ends_with_one_decoded_image_however_many_denoising_steps(monkeypatch):
    config, codec = autoencoder()
    decoded = []
    monkeypatch.setattr(codec, "decode_pixels", lambda obs: decoded.append(tuple(obs.shape)))
    (model,) = build_models(config.model, LINEAR, (), codec.model_schema, CPU).values()
    turn = step_turn(model, dummy_state(model, 2, full=True), 4, codec)
    for number in range(3):
        turn.run(number, None)
    assert decoded == [(2, 3, 8, 12)] * 3


def test_the_peak_holds_weights_cache_and_grows_with_rows():
    (model,) = models().values()
    weights = sum(p.nbytes for p in model.parameters())
    peaks = []
    for batch in (1, 16):
        s = dummy_state(model, batch, full=True)
        cache = s.cache.nbytes
        peaks.append(peak_bytes(model, s, *dummy_inputs(s, 2), 2, Identity(model.schema)) - weights - cache)
    assert 0 < peaks[0] < peaks[1] < 32 * peaks[0]


def test_a_full_start_attends_to_its_whole_window():
    for model in models("causal_dit", "far_long", height=32, width=32).values():
        s = dummy_state(model, 2, full=True)
        one, later = s.cache.visible(), model.imagine(s, *dummy_inputs(s, 2), 1).cache.visible()
        assert one.sum() == later.sum()


def test_in_each_round_everybody_takes_a_turn_behind_one_that_warms_up():
    calls = []

    def turn(name: str) -> Turn:
        return Turn(CPU, lambda i, given: calls.append((name, i, given)), prepare=lambda: f"for {name}")

    rounds = list(interleave({"a": turn("a"), "b": turn("b")}, seconds=0))
    assert calls == [(name, i, f"for {name}") for i in range(-1, FEWEST) for name in "ab"]
    assert len(rounds) == FEWEST
    assert all(elapsed.clock >= 0 and elapsed.waiting >= 0 for r in rounds for elapsed in r.values())


def test_ratios_are_medians_over_rounds():
    own, dense = torch.tensor([[1.0, 1], [2, 2], [10, 1]]), torch.tensor([[3.0, 4], [6, 8], [10, 5]])
    row = timing(own.numpy(), dense.numpy(), batch=2, peak=0, on_cpu=True)
    assert (row["faster"], row["faster_cpu"], row["p50_ms"]) == (3, 4, 2000)
    assert row["steps_per_s"] == 1


def test_the_front_is_what_nothing_beats_in_both():
    assert pareto([(3, 3), (1, 1), (2, 5), (1, 0), (4, 6)]) == [(1, 1), (2, 5), (4, 6)]


@pytest.mark.slow
def test_an_update_costs_about_three_forward_passes():
    (model,) = models().values()
    forward = count_cost(model, 1, 1).flops
    assert 2 * forward < count_update(model, 1, 1) < 8 * forward


@pytest.mark.slow
def test_bench_writes_tables_json_and_figures(slide_store, tmp_path, capsys):
    config = BenchConfig(
        **SMALL,
        baselines=["causal_dit"],
        num_steps=[1, 2],
        contexts=[2, 3],
        batch_sizes=[1, 2],
        training=True,
        train_batch_size=2,
        sequence_length=2,
        store=str(slide_store),
        out=str(tmp_path),
    )
    bench(config)
    report = json.loads((tmp_path / "bench.json").read_text())
    settings = [(r["context"], r["batch"], r["num_steps"]) for r in report["steps"] if r["model"] == "scd"]
    assert settings == [(c, b, n) for c in (2, 3) for b in (1, 2) for n in (1, 2)]
    assert all(0 < r["p50_ms"] <= r["p95_ms"] and r["peak_bytes"] > 0 for r in report["steps"])
    assert all(r["faster"] == r["flop_ratio"] == 1 for r in report["steps"] if r["model"] == "causal_dit")
    assert [r["model"] for r in report["training"]] == ["scd", "causal_dit"]
    assert all(r["tokens_per_s"] > 0 and 0 <= r["waiting"] < 1 for r in report["training"])
    assert report["store"]["frames_per_s"]["from RAM"] > 0
    assert (tmp_path / "latency.png").stat().st_size > 1000
    assert "2 + 1" in (tmp_path / "bench.md").read_text()
    assert "GFLOP/frame" in capsys.readouterr().out


@pytest.mark.slow
def test_quality_stands_beside_the_speed_it_was_evaluated_at(world, tmp_path):
    saved = world.save(tmp_path / "world")
    psnr = {"psnr_imagined": {"mean": [30.0, 29.0, 28.0, 27.0]}}
    for n in (1, 3):
        report = {"settings": {"world": str(saved)}, "world": {"num_steps": n}, "curves": psnr}
        (tmp_path / f"{n}.json").write_text(json.dumps(report))
    rows = quality([str(tmp_path / "1.json"), str(tmp_path / "3.json")], CPU, seconds=0.01)
    assert [r["num_steps"] for r in rows] == [1, 3]
    assert rows[0]["psnr"] == {"1": 30.0, "4": 27.0}
    assert rows[0]["gflop_per_frame"] < rows[1]["gflop_per_frame"]
    plot_quality(tmp_path / "quality.png", rows)
    assert (tmp_path / "quality.png").stat().st_size > 1000
    assert "30.0" in markdown(rows)
    with pytest.raises(FileNotFoundError, match="scd-evaluate"):
        quality([str(tmp_path / "none")], CPU, seconds=0.01)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_world_without_a_model_answers_as_much_as_the_world(world, kind):
    """Else what its step takes would not be what an environment adds to the model's."""
    envs = [WorldVectorEnv(w, 3, observations=kind) for w in (world, without_model(world))]
    whole, rest = (env.step(env.action_space.sample()) for env in envs if env.reset(seed=0))

    def sizes(values):
        if isinstance(values, dict):
            return {key: sizes(value) for key, value in values.items()}
        return tuple(values.shape), str(values.dtype)

    for theirs, ours in zip(whole[:4], rest[:4], strict=True):
        assert sizes(theirs) == sizes(ours)
    assert rest[4].keys() | {"uncertainty", "_uncertainty"} == whole[4].keys()
    assert sum(p.numel() for p in envs[1].world.model.parameters()) < 10


def test_of_a_world_that_looks_at_its_anchor_and_corrects_its_frames_nothing_is_left(world):
    config = replace(CONFIG, anchor_frame=True, anchor_attention=True, state_filter=True)
    world.model = make_model(config, world.schema, world.stats)
    assert without_model(world).model.filter is None


@pytest.mark.slow
def test_steps_and_updates_of_a_world_with_a_filter_are_counted(world):
    """They were not: where shapes alone are computed there is no autocast to switch off."""
    config = replace(CONFIG, anchor_frame=True, state_filter=True, measured_share=0.5, self_rollout_share=0.5)
    model = make_model(config, world.schema, world.stats).eval()
    assert model.filter is not None
    assert count_update(model, 2, 4) > 0
    assert count_cost(model, 2, 2).flops > count_cost(model, 1, 1).flops > 0
    model.filter.farthest.fill_(OPEN)
    model.filter.set_first_strength(torch.full_like(model.filter.first_strength, WHOLE))
    first_skipped = count_cost(model, 1, 3).flops
    model.filter.set_first_strength(torch.zeros_like(model.filter.first_strength))
    assert 0 < first_skipped < count_cost(model, 1, 3).flops


@pytest.mark.slow
def test_steps_through_gymnasium_stand_beside_those_without_the_model(world, tmp_path, capsys):
    saved = str(world.save(tmp_path / "world"))
    settings = {"compare": "environment", "batch_sizes": [1, 3], "num_steps": [2], "seconds": 0.01}
    report = bench(BenchConfig(world=saved, device="cpu", out=str(tmp_path / "bench"), **settings))
    rows = report["environment"]
    both = itertools.product((1, 3), ("numpy", "torch"))
    assert [(r["rows"], r["observations"]) for r in rows] == list(both)
    assert all(r["steps_per_s"] == pytest.approx(r["rows"] / r["ms"] * 1e3) for r in rows)
    assert all(r["without_model_ms"] > 0 for r in rows)
    assert "without the model, ms" in capsys.readouterr().out


def test_what_would_take_too_long_is_counted_and_not_timed(tmp_path):
    report = bench(BenchConfig(**SMALL, num_steps=[4], batch_sizes=[1], max_round_seconds=1e-12))
    (row,) = report["steps"]
    assert row["gflop_per_frame"] > 0
    assert "p50_ms" not in row


def test_a_slow_first_round_takes_no_measured_time():
    def run(number: int, _: object) -> None:
        time.sleep(0.3 if number < 0 else 0.001)

    assert len(list(interleave({"one": Turn(CPU, run)}, 0.2))) > 10


def test_updates_are_timed_on_what_the_model_trains_on(slide_store):
    """A world of latents was rebuilt on pixels: seventy times the work, under its name."""
    found = WindowStore.open(slide_store).schema
    assert of_windows(str(slide_store), found, False) == found
    with pytest.raises(ValueError, match=r"sees 1 cameras of 8×8, .* latents\.zarr"):
        of_windows(str(slide_store), replace(found, height=8, width=8), False)
    assert of_windows(str(slide_store), replace(found, height=8, width=8), True) == found


def test_what_cannot_be_measured_leaves_no_folder_behind(tmp_path):
    with pytest.raises(FileNotFoundError):
        bench(BenchConfig(world=str(tmp_path / "nowhere"), out=str(tmp_path / "bench")))
    assert not (tmp_path / "bench").exists()


def test_threads_are_counted():
    with pytest.raises(ValueError, match="threads=0: expected a number between 1"):
        BenchConfig(threads=0)
