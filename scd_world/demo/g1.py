"""The demonstration's second part: a real robot. Held-out recordings, and what the world imagines of them.

The shipped world of a Unitree G1 holds pieces of episodes that it never learned from: their first frames are
shown to it, their actions are repeated in it, and their other frames are the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

import scd_envs  # noqa: F401 (registers the ids)
from scd_world.demo.config import DemoConfig
from scd_world.demo.sim_comparison import as_json, per_step, steps_per_second, summary, write_videos
from scd_world.reporting import video
from scd_world.robot_data.normalizer import encode_pixels
from scd_world.world.model_card import what_it_is_given
from scd_world.world.starts import StartStates
from scd_world.world.world import World

CONTEXT = 4  # frames that are shown
STEPS = (1, 2, 4, 8, 16, 32, 48)
COLUMNS = {"psnr": "PSNR, dB", "psnr_copy": "copy-last"}
LABELS = ("recorded", "imagined", f"|difference| × {video.GAIN}")
SHOWN = 3  # pieces in the video


class Piece(NamedTuple):
    """Some frames of one recorded episode, one after another."""

    episode: int
    first: int  # the number of its first frame
    pixels: np.ndarray  # uint8 (n, V, H, W, 3)
    action: np.ndarray  # float32 (n, A)


def show_g1(config: DemoConfig, out: Path, device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Imagines what follows the first frames of each piece; gives figures, and files written."""
    print("\n── A real robot, from camera and joints alone: a Unitree G1 picks up a bottle ──", flush=True)
    env: Any = gymnasium.make("scd_world/G1-v0", device=device, num_steps=config.num_steps)
    world: World = env.unwrapped.world
    print("\n" + what_it_is_given(world.schema).replace("**", ""))
    found = pieces(world.starts)
    length = min(len(piece.pixels) for piece in found)
    imagined = repeat_actions(world, found, length, config.num_steps, config.seed)
    true = np.stack([piece.pixels[CONTEXT - 1 : length] for piece in found])
    curves = errors(true, imagined)
    print(f"\n{len(found)} held-out recordings, {CONTEXT} frames shown, then their actions: mean PSNR\n")
    print(summary(curves, STEPS, COLUMNS), "\n", flush=True)
    rate = steps_per_second(env)
    print(f"One imagined step: {1000 / rate:.0f} ms, {rate:.1f} steps/s (real time: {world.schema.fps:g})")
    report = {"pieces": [(piece.episode, piece.first) for piece in found], "steps_per_second": rate}
    names = [f"episode {piece.episode}, from frame {piece.first + CONTEXT}" for piece in found[:SHOWN]]
    images = video.compare(list(true), list(imagined), 1, names, LABELS, height=192)
    files = write_videos(out / "g1", images, world.schema.fps, LABELS)
    at = [h for h in STEPS if h < length - CONTEXT]
    video.write_png(out / "g1.png", video.strip(true[0], imagined[0], 1, at))
    return report | as_json(curves), files | {"g1.png": "image strip of the first recording"}


def pieces(starts: StartStates) -> list[Piece]:
    """Takes the start states apart where a frame does not follow the one before it."""
    episode, frame = starts.addresses.T
    breaks = np.flatnonzero((np.diff(episode) != 0) | (np.diff(frame) != 1)) + 1
    rows = np.split(np.arange(len(frame)), breaks)
    return [
        Piece(int(episode[r[0]]), int(frame[r[0]]), starts.pixels[r], starts.action[r])
        for r in rows
        if len(r) > CONTEXT
    ]


def repeat_actions(
    world: World, found: list[Piece], length: int, num_steps: int | None, seed: int
) -> np.ndarray:
    """Gives what is imagined of all pieces, uint8 (N, length − CONTEXT + 1, V, H, W, 3): the last frame that
    was shown, then one for each action."""
    envs: Any = gymnasium.make_vec(
        "scd_world/World-v0",
        num_envs=len(found),
        world=world,
        num_steps=num_steps,
        horizon=length,
        success_threshold=1.0,
        clip_actions=True,  # the recording may go a little beyond what was learned from
    )
    shown = {"episode": [p.episode for p in found], "frame": [p.first + CONTEXT - 1 for p in found]}
    obs, _ = envs.reset(seed=seed, options=shown)
    frames = [all_cameras(obs)]
    for step in range(CONTEXT - 1, length - 1):
        obs, *_ = envs.step(np.stack([piece.action[step] for piece in found]))
        frames.append(all_cameras(obs))
    return np.stack(frames, axis=1)


def all_cameras(obs: dict[str, Any]) -> np.ndarray:
    """Gives the pictures of an observation, uint8 (B, V, H, W, 3)."""
    pixels = obs["pixels"]
    return np.stack(list(pixels.values()) if isinstance(pixels, dict) else [pixels], axis=1)


def errors(true: np.ndarray, imagined: np.ndarray) -> dict[str, np.ndarray]:
    """Gives the PSNR of each step, (N, T), of what was imagined and of the last frame that was shown."""

    def compare(frames: np.ndarray) -> np.ndarray:
        a, b = (encode_pixels(torch.from_numpy(np.ascontiguousarray(x[:, 1:]))) for x in (true, frames))
        return per_step(a, b)

    return {"psnr": compare(imagined), "psnr_copy": compare(np.broadcast_to(true[:, :1], true.shape))}
