"""The demonstration's second part: a pendulum is recorded, a world of it trained from scratch, and stepped.

N episodes, T steps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import scd_envs  # noqa: F401 (registers the ids)
from scd_datasets.config import DataConfig
from scd_datasets.store.store import WindowStore
from scd_envs import simulators
from scd_policies import make
from scd_world.demo.config import DemoConfig
from scd_world.demo.sim_comparison import (
    LABELS,
    SimComparison,
    as_json,
    evenly_spaced,
    measure,
    run_both,
    states_of,
    steps_per_second,
    summary,
    write_videos,
)
from scd_world.metrics.statistics import angle_between
from scd_world.model.config import MODELS
from scd_world.optim.config import OptimizerConfig
from scd_world.prior.config import PriorTrainConfig
from scd_world.reporting import video
from scd_world.rollouts.config import RecordConfig
from scd_world.rollouts.record import record
from scd_world.training.config import TrainConfig
from scd_world.training.trainer import train
from scd_world.world.model_card import what_it_is_given
from scd_world.world.world import World

STEPS = (1, 5, 10, 15, 20)
WINDOWS = 48  # at most, of held-out episodes
ANGLE_STEPS = 10  # over which the angle's error is averaged
COLUMNS = {
    "psnr": "PSNR, dB",
    "psnr_copy": "copy-last",
    "angle": "angle, ° (state)",
    "angle_in_image": "angle, ° (image)",
}
HELD = 40  # steps for which each of three torques is held
Start = tuple[int, int]  # episode, frame


def show_pendulum(config: DemoConfig, out: Path, device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Runs the whole pipeline on gymnasium's Pendulum-v1, rendered small; gives figures, files written."""
    folder = out / "pendulum"
    print("\n── Pendulum: recorded, learned from scratch, and stepped, now ──")
    print(f"\nRecording {config.recorded_episodes} episodes under random torques", flush=True)
    record_pendulum(config, folder / "data")
    print(f"\nTraining a world of them for {config.training_seconds:.0f} seconds", flush=True)
    world = train_pendulum(config, folder / "data", folder / "run", device)
    print(training_summary(folder / "run" / "log.jsonl"), "\n", flush=True)

    print(what_it_is_given(world.schema))
    simulator = simulators.make("pendulum")
    store = WindowStore.open(folder / "run" / "windows.zarr")
    starts, actions = held_out_windows(world, store, max(STEPS))
    pair = replay(world, simulator, starts, actions, config.num_steps, "held-out episodes")
    curves = measure(pair, world.schema) | angle_errors(pair)
    print(f"\n{len(starts)} windows of held-out episodes, torques as recorded: mean PSNR, median errors\n")
    print(summary(curves, STEPS, COLUMNS), "\n")
    report = {"windows": len(starts)} | verdict(curves) | as_json(curves)
    env = gymnasium.make("scd_world/World-v0", world=world, num_steps=config.num_steps)
    report["steps_per_second"] = steps_per_second(env)
    print(verdict_text(report), "\n", flush=True)
    files = show_torques(world, simulator, starts, config.num_steps, out)
    return report, files | {
        "pendulum/data": "the recording, a LeRobotDataset",
        "pendulum/run": "the training: configuration, log, checkpoints, window store",
        "pendulum/run/world": 'the trained world: gymnasium.make("scd_world/World-v0", world=<this folder>)',
    }


def record_pendulum(config: DemoConfig, data: Path) -> None:
    """Records episodes under random torques; resumes, and exits where it was stopped."""
    recording = RecordConfig(
        env="pendulum",
        out=str(data),
        policy_kwargs={"speed": [0.05, 0.1, 0.2]},
        episodes=config.recorded_episodes,
        max_steps=80,
        seed=1000 * config.seed,
        task="Swing the pendulum",
        publish_every=config.recorded_episodes,
    )
    if len(record(recording)) < config.recorded_episodes:
        raise SystemExit("stopped while recording; the same command resumes")


def train_pendulum(config: DemoConfig, data: Path, run: Path, device: str) -> World:
    """Trains a world for the configured time; resumes, and exits where it was stopped."""
    training = TrainConfig(
        out=str(run),
        data=DataConfig(root=str(data), holdout=0.2),
        model=MODELS["nano"],
        prior=PriorTrainConfig(layers=0),
        optimizer=OptimizerConfig(lr=2e-3, ema_decay=0.995),
        steps=1_000_000,  # never reached: the time is up before
        batch_size=8,
        sequence_length=4,
        seed=config.seed,
        time_budget=config.training_seconds,
        device=config.device,
        log_every=25,
        eval_every=500,
        num_steps=config.num_steps,
    )
    world = World.load(train(training), device)
    if world.provenance["training_seconds"] < config.training_seconds - 1:
        raise SystemExit("stopped while training; the same command resumes")
    return world


def training_summary(log_file: Path) -> str:
    """Summarizes the training's own evaluations."""
    lines = [json.loads(line) for line in log_file.read_text(encoding="utf-8").splitlines()]
    evaluations = [line for line in lines if "eval/psnr_h16" in line]
    psnr = " → ".join(f"{line['eval/psnr_h16']:.1f}" for line in evenly_spaced(evaluations, 6))
    last = evaluations[-1]
    return (
        f"\nPSNR 16 steps ahead, held-out windows, up to update {last['step']}: {psnr} dB "
        f"(copying the last frame: {last['eval/psnr_copy_h16']:.1f});\n"
        f"its loss with another window's torques is {last['eval/action_sensitivity']:.1f} times that with "
        "the true ones"
    )


def held_out_windows(world: World, store: WindowStore, steps: int) -> tuple[list[Start], list[np.ndarray]]:
    """Chooses starts with all of the context that the world can use, and the actions recorded from there."""
    places = {int(index): place for place, index in enumerate(store.episode_index)}
    known, context = world.starts.rows, world.config.window
    starts = [
        (episode, frame)
        for episode, frame in known
        if all((episode, frame - i) in known for i in range(context))
        and frame + steps < store.lengths[places[episode]]
    ]
    starts = evenly_spaced(starts, WINDOWS)
    at = np.array([places[episode] for episode, _ in starts])
    windows = store.windows(at, np.array([frame for _, frame in starts]), steps)
    return starts, list(windows["action"])


def replay(
    world: World,
    simulator: gymnasium.Env,
    starts: Sequence[Start],
    actions: Sequence[np.ndarray],
    num_steps: int | None,
    what: str,
) -> SimComparison:
    """Runs given actions (T, A) from each start in both."""
    steps = len(actions[0])
    envs = gymnasium.make_vec(
        "scd_world/World-v0", num_envs=len(starts), world=world, horizon=steps, num_steps=num_steps
    )
    policy = make("replay", envs.single_action_space, actions=actions)
    return run_both(envs, simulator, policy, starts, steps, range(len(starts)), what)


def angle_errors(pair: SimComparison) -> dict[str, np.ndarray]:
    """Computes errors of the angle, (N, T) degrees: of the imagined state, and in the imagined frame."""
    true, state = (angle_of(states_of(side)) for side in (pair.true, pair.imagined))
    in_image = angle_in(pair.imagined.obs["pixels"])
    return {
        name: np.degrees(angle_between(angle, true))[:, 1:]
        for name, angle in (("angle", state), ("angle_in_image", in_image))
    }


def angle_of(state: np.ndarray) -> np.ndarray:
    """Computes θ of a state (…, 3): cos θ, sin θ, θ̇."""
    return np.arctan2(state[..., 1], state[..., 0])


def angle_in(pixels: np.ndarray) -> np.ndarray:
    """Reads θ off frames uint8 (…, H, W, 3): the direction from the center to the rod's center of mass."""
    ink = (
        255.0 - pixels[..., 1]
    )  # green separates the red rod from the white background; the axle is in the center
    ink = np.where(ink > 32, ink, 0.0)
    height, width = ink.shape[-2:]
    right = (ink.sum(-2) * (np.arange(width) - (width - 1) / 2)).sum(-1)
    up = -(ink.sum(-1) * (np.arange(height) - (height - 1) / 2)).sum(-1)
    return np.arctan2(-right, up)


def verdict(curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """Computes the figures that sum this part of the demonstration up."""
    centers = as_json(curves)
    gain = np.subtract(centers["psnr"], centers["psnr_copy"])
    return {
        "least_gain": float(gain.min()),
        "least_gain_step": int(gain.argmin()) + 1,
        "median_angle": float(np.nanmedian(curves["angle"][:, :ANGLE_STEPS])),
        "median_angle_in_image": float(np.nanmedian(curves["angle_in_image"][:, :ANGLE_STEPS])),
    }


def verdict_text(report: dict[str, Any]) -> str:
    gain, step = report["least_gain"], report["least_gain_step"]
    where = "at every step" if gain > 0 else "NOT at every step"
    return (
        f"PSNR above copy-last {where} 1…{max(STEPS)}: by {gain:.1f} dB where it is closest, at step {step}\n"
        f"Median angle error over {ANGLE_STEPS} imagined steps: {report['median_angle']:.1f}° in the state, "
        f"{report['median_angle_in_image']:.1f}° in the frame\n"
        f"{report['steps_per_second']:.0f} steps/s (real time: 20)"
    )


def show_torques(
    world: World, simulator: gymnasium.Env, starts: Sequence[Start], num_steps: int | None, out: Path
) -> dict[str, str]:
    """Writes a video and a strip of one start under three torques: does the imagination follow the action?"""
    schema = world.schema
    torques = (schema.action_low[0], 0.0, schema.action_high[0])
    names = [f"{torque:+.1f} N·m" for torque in torques]
    lowest = min(starts, key=lambda start: world.starts.get(*start).state[-1, 0])  # cos θ
    actions = [np.full((HELD, 1), torque, np.float32) for torque in torques]
    pair = replay(world, simulator, [lowest] * len(actions), actions, num_steps, "three torques")
    true, imagined = zip(*(pair.videos(i) for i in range(len(actions))), strict=True)
    video.write_png(out / "pendulum.png", strip(names, true, imagined))
    images = video.compare(true, imagined, 1, names, LABELS, height=192)
    files = write_videos(out / "pendulum", images, schema.fps / 2)
    files["pendulum.mp4"] += "; half speed"
    return files | {"pendulum.png": "image strip of one start under three torques"}


def strip(names: Sequence[str], true: Sequence[np.ndarray], imagined: Sequence[np.ndarray]) -> np.ndarray:
    """Composes a pair of rows for each torque, one column every few steps."""
    at, rows, labels = range(0, HELD + 1, 5), [], []
    for name, *both in zip(names, true, imagined, strict=True):
        for frames, source, border in zip(both, LABELS, (video.GIVEN, video.IMAGINED), strict=False):
            rows.append([video.Panel(frames[t, 0], border if t else video.GIVEN) for t in at])
            labels.append(f"{name}, {source}")
    return video.compose(rows, ["given", *(f"step {t}" for t in at[1:])], labels, height=96, side=True)
