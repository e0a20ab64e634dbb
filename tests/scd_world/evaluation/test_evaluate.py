"""An evaluation compares the right frames, on episodes that were held out, for any kind of data."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scd_datasets.config import DataConfig
from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.statistics import compute_stats
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_world.codec.codec import Identity
from scd_world.evaluation import action_response, outcome_prediction
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.curves import all_curves, state_uncertainty, survival, time_to_failure
from scd_world.evaluation.evaluate import Evaluator, evaluate, measure
from scd_world.evaluation.open_loop import (
    OpenLoopResults,
    Window,
    choose_windows,
    load_batch,
    spread_windows,
    start_windows,
)
from scd_world.evaluation.outcome_prediction import predict_outcomes
from scd_world.evaluation.pusht_errors import block_errors
from scd_world.evaluation.report import markdown, sweep_lines
from scd_world.evaluation.splits import select_eval_episodes
from scd_world.evaluation.state_errors import ENVIRONMENT, error_units, errors_to_show, state_errors
from scd_world.metrics.image import PSNR_CAP, psnr
from scd_world.model.config import ModelConfig
from scd_world.prior.config import PriorConfig
from scd_world.reporting.tables import plain
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.schema import DataSchema
from scd_world.training.export import pick_starts
from scd_world.world.world import World
from tests.conftest import PRIOR, make_model
from tests.scd_world.conftest import SLIDE, slide_episode

TINY = ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=8, window=4, num_steps=1)


def make_world(
    store: WindowStore,
    held_out: tuple[int, ...] = (2, 5),
    prior: PriorConfig = PRIOR,
    config: ModelConfig = TINY,
) -> World:
    """A world with random weights everywhere, the zero-initialised ones included."""
    trained = np.array([e for e in range(len(store.lengths)) if e not in held_out])
    stats = compute_stats(store, trained)
    model = make_model(config, store.schema, stats, prior).eval().requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        size = (
            0.1 if name.startswith(("prior.dynamics.", "prior.renderer.")) else 0.3
        )  # else chaos, and rounding would show
        parameter.copy_(size * torch.randn(parameter.shape, generator=g))
    provenance = {"fingerprint": store.fingerprint, "held_out_episodes": list(held_out)}
    return World(model, stats, pick_starts(store, trained, 2, 4), "", provenance)


@pytest.fixture
def store(slide_store) -> WindowStore:
    return WindowStore.open(slide_store)


@pytest.fixture
def slide_world(store) -> World:
    return make_world(store)


def settings(**changes: object) -> EvaluateConfig:
    values = {
        "world": "w",
        "out": "o",
        "windows": 4,
        "context": 3,
        "horizon": 6,
        "sweep_starts": 2,
        "num_videos": 1,
    }
    return EvaluateConfig(**(values | {"sweep_values": 3, "sweep_steps": 2, "shuffled_horizon": 3} | changes))


# ---- which frames ------------------------------------------------------------------------------


def test_windows_spread_over_an_episode_and_reach_its_last_reward():
    windows = choose_windows(np.array([24, 3, 9]), [0, 1, 2], context=3, horizon=6, per_episode=3)
    assert [w for w in windows if w.episode == 0] == [Window(0, 2, 7), Window(0, 10, 7), Window(0, 17, 7)]
    assert not [w for w in windows if w.episode == 1]  # three frames of context leave nothing to imagine
    assert [w for w in windows if w.episode == 2] == [Window(2, 2, 7)]
    assert [w.steps for w in windows] == sorted((w.steps for w in windows), reverse=True)


def test_a_batch_holds_what_the_store_has_at_each_step(store):
    windows = [Window(0, 4, 5), Window(3, 20, 4)]  # the second one runs to the episode's end
    batch = load_batch(store, windows, context=3, device="cpu")
    for row, window in enumerate(windows):
        at = store.starts[window.episode] + window.frame
        for h in range(window.steps):
            np.testing.assert_array_equal(batch.true_state(h)[row], store.state[at + h])
            np.testing.assert_array_equal(batch.future[row, h], store.action[at + h])
        for h in range(1, window.steps + 1):
            reward, success = batch.outcome(h)
            assert reward[row] == store.reward[at + h - 1]
            assert success[row] == store.success[at + h - 1]
    assert batch.recorded.tolist() == [[True] * 5, [True] * 4 + [False]]
    assert batch.valid.tolist() == [[True] * 5, [True] * 3 + [False] * 2]  # no frame after the last action


def test_the_clip_of_the_losses_is_the_stores_own_window(store, slide_world, monkeypatch):
    """Rewards of the context steps included; nothing of it is padding where a window is short."""
    windows = [Window(0, 4, 5), Window(3, 21, 3)]
    batch = load_batch(store, windows, context=3, device="cpu")
    clips = []
    monkeypatch.setattr(
        slide_world.model, "loss", lambda clip, noise: (clips.append(clip), (torch.ones(()), {}))[1]
    )
    action_response.losses_true_and_shuffled(slide_world, batch, seed=0)
    rows = store.windows(np.array([0, 3]), np.array([2, 19]), 5)
    expected = Clip.from_windows({k: torch.from_numpy(v) for k, v in rows.items()}, slide_world.stats)
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(clips[0], name), value, msg=name)


def test_a_perfect_imagination_scores_the_cap_and_no_error(store, slide_world):
    """And copy-last what is computed from the store by hand: nothing is compared one frame off."""
    windows = [Window(0, 4, 5), Window(3, 20, 4)]
    batch = load_batch(store, windows, 3, "cpu")
    loop = OpenLoopResults(windows, 5, 1)
    loop.start_state[:] = batch.true_state(0).numpy()
    s = start_windows(slide_world, batch)
    for h in range(1, 6):
        truth = replace(
            s,
            obs=batch.truth(h),
            state=slide_world.stats.encode_state(batch.true_state(h)),
            reward=slide_world.stats.encode_reward(batch.outcome(h)[0]),
        )
        loop.record(slide_world, slice(0, 2), h, truth, batch, changed_threshold=8)
    curves = all_curves(loop, store.schema)
    valid = batch.valid.numpy()
    assert (np.isfinite(curves["psnr_imagined"]) == valid).all()
    np.testing.assert_allclose(curves["psnr_imagined"][valid], PSNR_CAP, rtol=1e-4)
    np.testing.assert_allclose(curves["agent_distance_imagined"][valid], 0, atol=1e-6)
    np.testing.assert_allclose(curves["reward_square"][batch.recorded.numpy()], 0, atol=1e-9)
    pixels = store.windows(np.array([0]), np.array([4]), 5)["pixels"][0].astype(float)
    mse = ((pixels[1:] - pixels[0]) ** 2).mean((1, 2, 3, 4))
    by_hand = 10 * np.log10(255**2 / np.maximum(mse, 1 / 12))
    np.testing.assert_allclose(curves["psnr_copy"][0], by_hand, rtol=1e-4)
    drawn = slide_world.model.prior.render(slide_world.stats.encode_state(batch.true_state(3)))
    of_state = psnr(slide_world.codec.decode(drawn), batch.truth(3))
    np.testing.assert_allclose(curves["psnr_drawn"][:, 2], of_state.numpy(), rtol=1e-4)


def test_no_result_depends_on_the_batch(store, slide_world):
    curves = []
    for batch_size in (1, 3, 4):
        windows = spread_windows(store, np.array([2, 5]), settings())
        loop, *_ = Evaluator(slide_world, store, windows, settings(batch_size=batch_size)).open_loop()
        curves.append(all_curves(loop, store.schema))
    for other in curves[1:]:
        for name, values in curves[0].items():
            np.testing.assert_allclose(values, other[name], rtol=1e-3, atol=1e-3, err_msg=name)


# ---- which episodes ----------------------------------------------------------------------------


def test_held_out_episodes_are_found_by_the_worlds_own_record(store, slide_world, caplog):
    chosen = select_eval_episodes(slide_world.provenance, store, None)
    assert chosen.episodes.tolist() == [2, 5]
    assert not chosen.warning
    assert not caplog.records


@pytest.mark.parametrize(
    ("fingerprint", "wanted", "words"),
    [(None, [0, 2], "TRAINED ON"), ("of other data", None, "cannot be checked")],
)
def test_it_warns_loudly_where_nothing_proves_it(store, slide_world, caplog, fingerprint, wanted, words):
    provenance = slide_world.provenance | ({"fingerprint": fingerprint} if fingerprint else {})
    with caplog.at_level(logging.WARNING):
        chosen = select_eval_episodes(provenance, store, wanted)
    assert words in chosen.warning
    assert words in caplog.text
    assert chosen.episodes.tolist() == (wanted or list(range(8)))


def test_what_a_parent_was_trained_on_is_not_held_out(store, slide_world):
    """A world that started from another's weights (init=) was trained on that one's episodes too."""
    first = slide_world.provenance | {"held_out_episodes": [1, 2]}
    second = slide_world.provenance | {"held_out_episodes": [2, 5], "parent": first}
    assert select_eval_episodes(second, store, None).episodes.tolist() == [2]
    assert "TRAINED ON" in select_eval_episodes(second, store, [2, 5]).warning
    other = second | {"parent": first | {"fingerprint": "of other data"}}
    chosen = select_eval_episodes(other, store, None)
    assert chosen.episodes.tolist() == [2, 5]
    assert "cannot be checked" in chosen.warning


def test_worlds_that_are_compared_are_evaluated_on_what_all_of_them_held_out(store, slide_world):
    first = slide_world.provenance | {"held_out_episodes": [1, 2]}
    second, third = first | {"held_out_episodes": [2, 5]}, first | {"held_out_episodes": [3]}
    assert select_eval_episodes(first, store, None, compared=[second]).episodes.tolist() == [2]
    assert (
        "TRAINED ON" in select_eval_episodes(first, store, None, compared=[second, third]).warning
    )  # none is left


def test_unknown_episodes_are_named(store, slide_world):
    with pytest.raises(ValueError, match=r"no episodes \[77\]; its 8 go from 0 to 7"):
        select_eval_episodes(slide_world.provenance, store, [2, 77])


def test_data_of_another_kind_is_refused(store, slide_world):
    slide_world.codec = Identity(replace(store.schema, action=("pull",)))
    with pytest.raises(ValueError, match=r"action \('push',\), this world was trained with \('pull',\)"):
        measure(slide_world, store, settings())


# ---- reward and success -----------------------------------------------------------------------


def test_every_step_is_predicted_from_its_own_action_the_last_one_too(store, slide_world, monkeypatch):
    world, observe = slide_world, slide_world.model.observe

    def echo(s, action, obs, state):  # predicts the action as its reward, the state as its success
        return replace(observe(s, action, obs, state), reward=action[:, 0], success=s.state[:, 0])

    monkeypatch.setattr(world.model, "observe", echo)
    read, at_once = store.pixels_of_rows, []
    monkeypatch.setattr(store, "pixels_of_rows", lambda rows: at_once.append(rows.shape[1]) or read(rows))
    monkeypatch.setattr(outcome_prediction, "FRAMES_AT_ONCE", 3)
    counted = []
    outcomes = predict_outcomes(world, store, [3, 0, 2], batch_size=2, done=counted.append)
    rows = np.concatenate([store.starts[e] + np.arange(store.lengths[e]) for e in (3, 0, 2)])
    assert sum(counted) == len(rows) == len(outcomes.reward)
    order = np.argsort(outcomes.episode, kind="stable")
    rows = rows[np.argsort(np.repeat((3, 0, 2), store.lengths[[3, 0, 2]]), kind="stable")]
    stats, tensor = world.stats, world.tensor
    reward = stats.decode_reward(stats.encode_action(tensor(store.action[rows]))[:, 0]).numpy()
    np.testing.assert_allclose(outcomes.reward[order], reward, rtol=1e-5, atol=1e-5)
    success = stats.encode_state(tensor(store.state[rows]))[:, 0].numpy()
    np.testing.assert_allclose(outcomes.success[order], success, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outcomes.true_reward[order], store.reward[rows])
    assert max(at_once) == 3 < store.lengths[[3, 0, 2]].min()  # a whole episode of pictures may be gigabytes


# ---- the whole report ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_evaluation(slide_store, slide_world, tmp_path, capsys):
    folder = slide_world.save(tmp_path / "world")
    out = tmp_path / "out"
    out.mkdir()
    for old in (".scd_world.json", "strip_9.png"):  # of an evaluation with more windows
        (out / old).write_text('{"command": "scd-evaluate"}')
        os.utime(out / old, (1, 1))
    data = DataConfig(kind="zarr", root=str(slide_store))
    evaluate(settings(world=str(folder), out=str(out), data=data, device="cpu"))
    report = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)  # no NaN in JSON
    assert report["data"]["held_out"] == "held out of its training"
    assert report["curves"]["psnr_imagined"]["count"] == [4] * 6
    assert set(report["sweep"]) == {"push"}
    assert len(report["sweep"]["push"]["values"]) == 3
    assert report["actions"]["loss_ratio"]["total"] > 0
    assert report["success"]["steps"] == 4 * 7  # one more: the last action's
    assert report["outcomes"]["steps"] == 2 * 24  # two whole episodes
    assert report["speed"]["p50_ms"] > 0
    text = (out / "report.md").read_text()
    assert text.startswith(report["verdict"]["lines"][0])
    assert "It is given " in text
    assert "Drawing alone is what the state prior's renderer draws of the imagined state" in text
    assert "`agent` is the Euclidean norm of the error over all numbers of the robot's state" in text
    assert text in capsys.readouterr().out
    assert "|    6 |       4 |" in text
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "report.json",
        "report.md",
        "curves.png",
        "sweep.png",
        "success.png",
        "strip_0.png",
        "worst.png",
        "film.mp4",
    }
    assert "strip_9.png" not in names
    means = [row["psnr_imagined"] for row in report["worst"]]
    assert means == sorted(means)
    assert np.mean(means) <= np.mean(report["curves"]["psnr_imagined"]["mean"]) + 1e-3
    assert "## Where it fails" in text


@pytest.mark.slow
def test_a_horizon_shorter_than_the_shuffled_one(slide_store, slide_world, tmp_path):
    """An episode's step after the horizon has a reward, but no frame to compare with."""
    slide_world.save(tmp_path / "world")
    data = DataConfig(kind="zarr", root=str(slide_store))
    where = {"world": str(tmp_path / "world"), "out": str(tmp_path / "o"), "data": data}
    report = evaluate(settings(**where, horizon=2, device="cpu"))
    assert len(report["actions"]["psnr_shuffled"]["mean"]) == 2


@pytest.mark.slow
def test_pixels_alone_with_two_cameras(tmp_path):
    """No state, no reward, no success, two cameras: whatever is not recorded is not reported."""
    schema = DataSchema(
        cameras=("top", "wrist"),
        height=16,
        width=24,
        agent_pos=(),
        environment_state=(),
        action=("a", "b"),
        action_low=(-1.0, -1.0),
        action_high=(1.0, 1.0),
        fps=5,
        tasks=(),
        reward=False,
        success=False,
        horizon=12,
    )

    def episode(index: int) -> EpisodeArrays:
        rng, L = np.random.default_rng(index), 12
        pixels = rng.integers(0, 256, (L, 2, 16, 24, 3), np.uint8)
        action = rng.uniform(-1, 1, (L, 2)).astype(np.float32)
        return EpisodeArrays(
            pixels, np.zeros((L, 0), np.float32), action, np.zeros(L), np.zeros(L, bool), index
        )

    store = write_store(tmp_path / "two.zarr", schema, (episode(i) for i in range(4)))
    report, videos, _ = measure(make_world(store, held_out=(1, 3)), store, settings())
    assert "reward" not in report
    assert "success" not in report
    assert report["outcomes"] == {}
    assert not [name for name in report["curves"] if "agent" in name or "error" in name]
    assert videos[0].imagined.shape[1:] == (2, 16, 24, 3)
    assert max(report["sweep"]["a"]["pixel_change"]) > 0


@pytest.mark.slow
def test_what_the_world_was_not_trained_on_is_not_reported(store, slide_world):
    """The data has success, the world's had none: its head was never trained."""
    assert store.schema.success
    slide_world.codec = Identity(replace(slide_world.schema, success=False))
    report, _, _ = measure(slide_world, store, settings(sweep_starts=0))
    assert "success" not in report
    assert "reward" in report
    assert "success" not in report["outcomes"]
    assert "reward" in report["outcomes"]


@pytest.mark.slow
def test_what_follows_a_dropped_frame_is_reported_apart(store, slide_world):
    """The figures of all windows stay what they are; beside them are those of what comes before."""
    chosen = settings(sweep_starts=0)
    whole, *_ = measure(slide_world, store, chosen)
    assert whole["dropped_frames"] == {}
    assert "dropped a frame" not in markdown(whole)
    episode, frame = whole["data"]["starts"][0][:2]
    other = store.starts[0]  # of no window
    store.dropped = np.isin(np.arange(len(store.action)), [other, store.starts[episode] + frame + 2])
    report, *_ = measure(slide_world, store, chosen)
    found, curves = report["dropped_frames"], report["curves"]
    assert curves["psnr_imagined"] == whole["curves"]["psnr_imagined"]
    assert found["windows"] == 1
    assert found["steps"] == chosen.horizon - 2  # after two steps the third is late
    counts = {
        name: np.array(c["psnr_imagined"]["count"])
        for name, c in [("all", curves), ("kept", found["curves"])]
    }
    assert (counts["all"] - counts["kept"]).tolist() == [0, 0] + [1] * (chosen.horizon - 2)
    assert found["curves"]["psnr_imagined"]["mean"][:2] == curves["psnr_imagined"]["mean"][:2]
    assert found["curves"]["psnr_imagined"]["mean"][2:] != curves["psnr_imagined"]["mean"][2:]
    assert "In 1 of these windows the recorder dropped a frame" in markdown(report)


def test_numbers_that_are_not_known_are_null():
    assert plain({"a": [float("nan"), np.float32(1.5)], "b": np.int64(2)}) == {"a": [None, 1.5], "b": 2}


# ---- actions -------------------------------------------------------------------------------------


def test_no_window_keeps_its_own_actions_when_shuffled():
    """Nor those of its own episode, however the windows lie in the batch."""
    for episodes in ([0, 1], [0, 1, 2, 0, 1, 2], [0, 0, 0, 1], [3, 1, 1, 3]):
        rows = action_response.other_rows([Window(e, 3, 5) for e in episodes])
        assert all(episodes[i] != episodes[j] for i, j in enumerate(rows))
    assert action_response.other_rows([Window(0, f, 5) for f in (3, 6, 9)]).tolist() == [1, 2, 0]


def test_an_action_that_never_moved_is_not_swept(store, slide_world):
    """Of no range there is no slope: NaN per unit, after as many steps as for any other."""
    constant = replace(slide_world.stats, action_high=slide_world.stats.action_low)
    report, _, _ = measure(replace(slide_world, stats=constant), store, settings())
    assert report["sweep"] == {}


def test_slopes_of_a_sweep_by_hand():
    values = np.array([-1.0, 0.0, 1.0])
    response = np.stack([np.stack([2 * values + 5, -3 * values], 1), np.stack([4 * values, 0 * values], 1)])
    sweep = action_response.ActionSweep("push", values, response, np.zeros((2, 3)), np.array([3.0, np.nan]))
    np.testing.assert_allclose(sweep.slopes(), [[2, -3], [4, 0]])
    report = sweep.report(("x", "y"), np.array([0, 1]))
    assert (report["slope"]["x"]["mean"], report["slope"]["x"]["same_sign"]) == (3, 1)
    assert report["slope"]["y"]["same_sign"] == 0.5


def test_a_sweep_names_the_joint_that_the_action_commands():
    """It named the wrist, which the elbow's command moves a little more, and nobody found the elbow."""

    def slope(mean: float) -> dict[str, float]:
        return {"mean": mean, "same_sign": 1.0, "in_data": 0.9}

    def lines(own: dict[str, str]) -> list[str]:
        sweeps = {"elbow": {"slope": {"elbow": slope(0.5), "wrist": slope(-0.7)}}}
        return sweep_lines(sweeps, {"action": [], "state": []}, [], own)

    (line,) = lines({"elbow": "elbow"})
    assert line.startswith("action `elbow` moves `elbow` by +0.5")
    assert line.endswith("; it moves `wrist` more, by -0.700")
    (line,) = lines({"elbow": "wrist"})
    assert line.startswith("action `elbow` moves `wrist` by")
    assert "more" not in line
    assert lines({}) == [line]


def test_an_action_commands_the_number_of_its_name_or_the_one_that_follows_it(slide_world):
    assert action_response.own_numbers(slide_world) == {"push": "x"}  # it was found to follow
    slide_world.stats = replace(slide_world.stats, commanded_by=-torch.ones(1))
    assert action_response.own_numbers(slide_world) == {}
    slide_world.codec = Identity(replace(slide_world.schema, action=("x",)))
    assert action_response.own_numbers(slide_world) == {"x": "x"}


def test_the_datas_own_slope(store):
    """x moves by half the action, but for the walls that it stops at."""
    slope = action_response.slopes_in_data(store, np.arange(8), steps=1)
    assert slope.shape == (1, 1)
    assert 0.35 < slope[0, 0] <= 0.51


def still_store(path: Path) -> WindowStore:
    """A wrist that moves in the first episodes alone and rests, noisily, in the last two; a stuck finger."""
    schema = replace(
        SLIDE,
        agent_pos=("x", "wrist_rad"),
        action=("push", "turn", "finger"),
        action_low=(-1.0, -1.0, 0.5),
        action_high=(1.0, 1.0, 0.5),
        reward=False,
        success=False,
    )

    def episode(i: int) -> EpisodeArrays:
        base, rng = slide_episode(i), np.random.default_rng(i + 100)
        turn = rng.uniform(-1, 1, (24, 1)) * (1.0 if i < 6 else 0.001)
        wrist = 0.4 * np.cumsum(np.concatenate([[[0.0]], turn[:-1]]), axis=0)
        wrist += rng.normal(0, 0.001, wrist.shape)
        action = np.concatenate([base.action, turn, np.full((24, 1), 0.5)], axis=1).astype(np.float32)
        state = np.concatenate([base.state, wrist], axis=1).astype(np.float32)
        return replace(base, state=state, action=action)

    return write_store(path, schema, map(episode, range(8)))


def test_recordings_do_not_say_what_hardly_moved_in_them_does(tmp_path):
    """The slope of a joint that rests is one of its noise: it read .002 for a true .403."""
    store = still_store(tmp_path / "still.zarr")
    slopes = action_response.slopes_in_data(store, np.arange(8), steps=1)
    np.testing.assert_allclose(slopes[1, 1], 0.4, atol=0.01)
    assert np.isnan(slopes[2]).all()
    slopes = action_response.slopes_in_data(store, np.array([6, 7]), steps=1)
    assert np.isfinite(slopes).tolist() == [[True, False], [False, False], [False, False]]
    resting = {"action": ["turn", "finger"], "state": ["wrist_rad"]}
    assert action_response.hardly_moved(store, np.array([6, 7])) == resting


def test_recordings_do_not_tell_two_actions_apart_that_were_always_the_same(store):
    """Either slope alone is anything: it read +252 where the whole arm moved at once."""
    noise = np.random.default_rng(0).normal(0, 1e-4, store.action.shape)
    store.action = np.concatenate([store.action, store.action + noise], axis=1)
    store.schema = replace(store.schema, action=("push", "twin"), action_low=(-1, -1), action_high=(1, 1))
    assert np.isnan(action_response.slopes_in_data(store, np.arange(8), steps=1)).all()


@pytest.mark.slow
def test_what_never_varied_and_what_hardly_moved_is_said_in_words(tmp_path):
    store = still_store(tmp_path / "still.zarr")
    report, _, _ = measure(make_world(store, held_out=(6, 7)), store, settings())
    assert report["never_varied"] == ["finger"]
    assert set(report["sweep"]) == {"push", "turn"}
    text = markdown(report)
    assert "nan" not in text
    assert "never varied in the recordings, so that nobody knows what they do: actions `finger`" in text
    assert "recordings: hardly moved in the held-out episodes" in text
    assert "0.00 (0.00)" not in text


def test_the_null_action_holds_where_actions_are_positions(store):
    assert action_response.find_null_action(store, np.arange(8)) == "zero"
    store.action = np.roll(store.state, -1, axis=0)  # now each action is where the robot is next
    assert action_response.find_null_action(store, np.arange(8)) == "hold"
    store.action = np.random.default_rng(0).uniform(1, 2, store.state.shape)  # zero was never asked for
    assert action_response.find_null_action(store, np.arange(8)) == "unknown"


# ---- errors and failures --------------------------------------------------------------------------


def test_block_errors_by_hand():
    pusht = pytest.importorskip("scd_envs.simulators.pusht")
    truth = pusht.block_keypoints(np.array([[[200.0, 300, 3.1], [210, 300, 0.5]]]))
    moved = pusht.block_keypoints(np.array([[[203.0, 304, -3.1], [210, 300, 0.5]]]))
    errors = block_errors(moved, truth)
    np.testing.assert_allclose(errors["block_distance"], [[5, 0]], atol=1e-4)
    np.testing.assert_allclose(errors["block_angle"], [[np.degrees(2 * np.pi - 6.2), 0]], atol=1e-4)


def test_sixteen_numbers_need_not_be_a_t():
    pytest.importorskip("scd_envs.simulators.pusht")
    numbers = np.random.default_rng(0).normal(size=(2, 3, 16))
    assert block_errors(numbers, numbers) == {}
    assert block_errors(numbers[..., :5], numbers[..., :5]) == {}


def test_a_measure_of_a_states_own_stands_in_for_the_mean_error():
    """Generic code knows no simulator; what a measure adds is shown instead of the mean error."""
    schema = SimpleNamespace(agent_pos=("x",), environment_state=("a", "b"), state=("x", "a", "b"))
    assert error_units(schema)["agent_distance"] == "the dataset's units"
    in_radians = SimpleNamespace(agent_pos=("elbow_rad", "wrist.rad"), environment_state=("a",))
    assert error_units(in_radians)["agent_distance"] == "rad"
    truth = np.zeros((1, 2, 3))
    errors = state_errors(truth + np.array([3.0, 1.0, 2.0]), truth, schema)
    assert {name: values.tolist() for name, values in errors.items()} == {
        "error_agent_pos": [[3, 3]],
        "error_environment_state": [[1.5, 1.5]],
        "agent_distance": [[3, 3]],
    }
    assert errors_to_show(errors, "")[-1] is ENVIRONMENT
    shown = errors_to_show({"agent_distance", "block_distance", "error_environment_state"}, "")
    assert [error.name for error in shown] == ["agent_distance", "block_distance"]


def test_the_uncertainty_is_scored_on_what_was_recorded_and_predicted():
    loop = OpenLoopResults([Window(0, 0, 10)] * 10, 10, 2)
    rng = np.random.default_rng(0)
    loop.state_error[:] = rng.exponential(0.01, (10, 10))
    loop.state_error[0, 5:] = np.nan  # what was not recorded counts for nothing
    assert state_uncertainty(loop) == {}  # a world without a prior predicts none
    loop.uncertainty[:] = 2 * loop.state_error
    scores = state_uncertainty(loop)
    assert scores["auroc"] == 1.0
    assert scores["auroc_of_the_step"] < 0.8
    assert scores["steps"] == 95
    np.testing.assert_allclose(scores["predicted"], 2 * np.array(scores["observed"]), rtol=1e-5)
    assert scores["mean_predicted"] == pytest.approx(2 * scores["mean_observed"])
    loop.uncertainty[:] = 1.0
    assert state_uncertainty(loop)["auroc"] == 0.5


@pytest.mark.slow
def test_a_world_without_a_prior_has_no_uncertainty_to_report(store):
    world = make_world(store, prior=PriorConfig(kind="none"))
    report, _, _ = measure(world, store, settings(sweep_starts=0))
    assert report["uncertainty"] == {}
    assert "uncertainty" not in markdown(report)


@pytest.mark.slow
def test_the_error_to_expect_of_pictures_is_scored_beside_the_one_they_have(store, slide_store, tmp_path):
    world = make_world(store, config=replace(TINY, state_filter=True, anchor_frame=True))
    report, _, _ = measure(world, store, settings(sweep_starts=0))
    assert report["image_uncertainty"] == {}  # it was not measured
    assert "image uncertainty" not in markdown(report)
    world.model.filter.error_weights.copy_(torch.tensor([-2.0, 0.3, 0.1, 0.1, 0.1, 0.0]))
    data, out = DataConfig(kind="zarr", root=str(slide_store)), tmp_path / "evaluation"
    folder = world.save(tmp_path / "world")
    told = evaluate(settings(world=str(folder), out=str(out), data=data, device="cpu", sweep_starts=0))
    scores = told["image_uncertainty"]
    errors = 10 ** (-np.array(told["curves"]["psnr_imagined"]["median"]) / 20)
    assert 0.5 < scores["mean_observed"] / errors.mean() < 2
    assert 0 < scores["mean_predicted"] < 1
    assert scores["steps"] == told["uncertainty"]["steps"]
    assert "image uncertainty: AUROC" in (out / "report.md").read_text()
    assert (out / "image_uncertainty.png").exists()


def test_a_window_that_failed_once_has_failed():
    imagined = np.array([[5.0, 1.0, 9.0, np.nan], [5.0, np.nan, 9.0, 9.0]])
    copy = np.array([[3.0, 3.0, 3.0, np.nan], [3.0, np.nan, 3.0, 3.0]])
    alive = survival(imagined, copy)
    np.testing.assert_array_equal(alive, [[1, 0, 0, np.nan], [1, 1, 1, 1]])
    np.testing.assert_array_equal(survival(copy - 1e-6, copy)[1], [1, 1, 1, 1])  # equal but for rounding
    means = {
        "psnr_gain": {"mean": [2.0, -0.5], "low": [1.5, -0.7], "high": [2.5, -0.3]},
        "psnr_changed_gain": {"mean": [2.0, -0.5], "low": [1.5, -1.2], "high": [2.5, 0.2]},
    }
    found = time_to_failure({"survival": alive}, means)
    assert found["mean_psnr"] == 2
    assert found["mean_psnr_changed"] is None
    assert found["windows_never_failed"] == 0.5


def test_weights_that_are_not_there_are_said_before_the_data_is_prepared(slide_world, tmp_path, monkeypatch):
    """Of a new recording, that is minutes of decoding."""
    monkeypatch.setattr("scd_world.evaluation.evaluate.open_store", lambda *_, **__: pytest.fail("prepared"))
    folder = slide_world.save(tmp_path / "world")
    for name in ("lpips_weights", "fvd_weights"):
        config = EvaluateConfig(world=str(folder), out=str(tmp_path / name), **{name: "/nowhere.safetensors"})
        with pytest.raises((ValueError, OSError), match=r"/nowhere\.safetensors"):
            evaluate(config)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_steps": -3}, r"num_steps=.*above 0"),
        ({"num_steps": 0}, r"num_steps=.*above 0"),
        ({"outcome_episodes": -1}, "outcome_episodes"),
        ({"sweep_starts": -1}, "sweep_starts"),
        ({"shuffled_horizon": -1}, "shuffled_horizon"),
        ({"episodes": []}, r"episodes=\[\]: name some"),
    ],
)
def test_settings_that_can_only_fail_or_mislead_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        settings(**wrong)
