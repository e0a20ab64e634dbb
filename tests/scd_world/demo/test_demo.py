"""The demonstration measures what it reports, and runs from the recording to the last image."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.statistics import compute_stats
from scd_datasets.store.writer import write_store
from scd_datasets.writing.episodes import to_lerobot_frame
from scd_envs import simulators
from scd_policies.rollout import Rollouts
from scd_world.demo import pendulum, pusht
from scd_world.demo.config import DemoConfig
from scd_world.demo.demo import demo
from scd_world.demo.pendulum import angle_in, angle_of
from scd_world.demo.sim_comparison import SimComparison, measure, steps_per_second, summary
from scd_world.metrics.image import PSNR_CAP
from scd_world.metrics.statistics import angle_between
from scd_world.model.config import ModelConfig
from scd_world.robot_data.schema import DataSchema
from scd_world.training.export import pick_starts
from scd_world.world.world import World
from tests.conftest import make_model

PENDULUM = DataSchema(
    cameras=("image",),
    height=8,
    width=8,
    agent_pos=("cos", "sin", "speed"),
    environment_state=(),
    action=("torque",),
    action_low=(-2.0,),
    action_high=(2.0,),
    fps=20,
    tasks=(),
    reward=False,
    success=False,
    horizon=10,
)


@pytest.fixture(autouse=True)
def _steps_are_timed_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (pendulum, pusht):
        monkeypatch.setattr(part, "steps_per_second", partial(steps_per_second, seconds=0.05))


def rollouts(pixels: np.ndarray, lengths: list[int]) -> Rollouts:
    N, T = len(pixels), pixels.shape[1] - 1
    flags = np.zeros(N, bool)
    return Rollouts(
        seed=np.arange(N),
        length=np.array(lengths),
        obs={"pixels": pixels, "agent_pos": np.zeros((N, T + 1, 3), np.float32)},
        action=np.zeros((N, T, 1), np.float32),
        reward=np.zeros((N, T)),
        terminated=flags,
        truncated=flags,
        success=flags,
    )


def test_each_step_is_compared_with_its_own_frame_and_with_the_first():
    """Guards against an imagination that is one frame late, and against comparing past a simulator's end."""
    true = np.zeros((2, 4, 8, 8, 3), np.uint8)
    true += (50 * np.arange(4, dtype=np.uint8))[:, None, None, None]
    pair = SimComparison(
        rollouts(np.pad(true, [(0, 0), (0, 2)] + [(0, 0)] * 3), [5, 5]), rollouts(true, [3, 1])
    )
    curves = measure(pair, PENDULUM)
    assert curves["psnr"].shape == (2, 3)
    np.testing.assert_allclose(curves["psnr"][0], PSNR_CAP, rtol=1e-5)
    gray = 50 * np.arange(1, 4)
    np.testing.assert_allclose(curves["psnr_copy"][0], 20 * np.log10(255 / gray), rtol=1e-4)
    assert np.isnan(curves["psnr"][1]).tolist() == [False, True, True]
    assert [len(frames) for frames in pair.videos(1)] == [2, 2]


def test_the_table_takes_means_of_psnr_and_medians_of_errors():
    curves = {"psnr": np.array([[1.0], [2.0], [6.0]]), "angle": np.array([[1.0], [2.0], [np.nan]])}
    table = summary(curves, (1, 5), {"psnr": "PSNR", "angle": "angle", "block": "block"})
    assert "3.00" in table
    assert "1.50" in table
    assert "block" not in table
    assert "\n|    5 |" not in table


def test_the_angle_is_read_off_the_frame():
    simulator = simulators.make("pendulum")
    for theta in np.linspace(-3, 3, 13):
        state = np.array([np.cos(theta), np.sin(theta), 0.0], np.float32)
        obs, _ = simulator.reset(options={"agent_pos": state})
        assert angle_between(angle_of(state), theta) < 1e-6
        assert np.degrees(angle_between(angle_in(obs["pixels"]), theta)) < 0.5


@pytest.mark.slow
def test_the_pendulums_part_runs_from_recording_to_report(tmp_path: Path, capsys: pytest.CaptureFixture):
    config = DemoConfig(
        out=str(tmp_path),
        pusht=False,
        g1=False,
        device="cpu",
        recorded_episodes=5,
        training_seconds=2,
        num_steps=1,
    )
    report = demo(config)["pendulum"]
    assert len(report["psnr"]) == 20
    assert np.isfinite([report["least_gain"], report["median_angle"], report["median_angle_in_image"]]).all()
    printed = capsys.readouterr().out
    assert "It is given cameras and proprioception" in printed
    for name in ("pendulum.mp4", "pendulum.webp", "pendulum.png", "pendulum/run/world", "report.json"):
        assert (tmp_path / name).exists()
        assert f"  {name} " in printed
    assert json.loads((tmp_path / "report.json").read_text())["pendulum"]["windows"] == report["windows"]


@pytest.fixture
def pusht_world(tmp_path: Path) -> Path:
    """An untrained world that starts from real first frames: it predicts no motion, which is enough."""
    pytest.importorskip("gym_pusht")
    simulator, episodes = simulators.make("pusht"), []
    for index in range(2):
        obs, _ = simulator.reset(seed=index)
        frames, actions = [], []
        for step in range(5):
            frames.append(to_lerobot_frame(obs))
            actions.append(np.float32([0, 512] if step % 2 else [512, 0]))
            obs, *_ = simulator.step(actions[-1])
        state = [np.concatenate([s["observation.state"], s["observation.environment_state"]]) for s in frames]
        pixels = np.stack([s["observation.image"] for s in frames])[:, None]
        still = np.zeros(5, np.float32)
        episodes.append(EpisodeArrays(pixels, np.stack(state), np.stack(actions), still, still > 0, index))
    schema = replace(
        PENDULUM,
        height=96,
        width=96,
        agent_pos=("x", "y"),
        environment_state=tuple(f"k{i}" for i in range(16)),
        action=("x", "y"),
        action_low=(0.0, 0.0),
        action_high=(512.0, 512.0),
        fps=10,
    )
    store = write_store(tmp_path / "pusht.zarr", schema, episodes)
    stats = compute_stats(store, np.arange(2))
    torch.manual_seed(0)
    tiny = ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=48, window=2, num_steps=1)
    model = make_model(tiny, schema, stats).eval().requires_grad_(False)
    return World(model, stats, pick_starts(store, np.arange(2), 2, 3)).save(tmp_path / "world")


@pytest.mark.slow
def test_the_simulator_begins_where_the_imagination_does(pusht_world: Path, tmp_path: Path):
    config = DemoConfig(
        out=str(tmp_path / "demo"),
        world=str(pusht_world),
        device="cpu",
        g1=False,
        pendulum=False,
        episodes=2,
        horizon=4,
    )
    report = demo(config)["pusht"]
    assert report["starts"] == [[0, 0], [1, 0]]
    for policy in ("scripted_pusht", "random_walk"):
        # Copying the first frame is nearly right after one step only where both began from the same state.
        assert report[policy]["psnr_copy"][0] > 25
        assert report[policy]["block_distance"][0] < 20
        assert len(report[policy]["psnr"]) == 4
    for name in ("pusht.mp4", "pusht.webp", "pusht_scripted_pusher.png", "pusht_random_walk.png"):
        assert (tmp_path / "demo" / name).is_file()


def test_without_the_simulator_it_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    def missing(name: str) -> None:
        raise ImportError("No module named 'gym_pusht'")

    monkeypatch.setattr("scd_world.demo.pusht.simulators.make", missing)
    assert "gym_pusht" in demo(DemoConfig(out=str(tmp_path), g1=False, pendulum=False))["pusht"]["left_out"]
    assert "pip install" in capsys.readouterr().out
