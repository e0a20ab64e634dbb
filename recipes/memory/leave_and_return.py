"""Is what left the view and comes back three seconds later what it was?

    python recipes/memory/leave_and_return.py runs/memory/false/world runs/memory/true/world

A camera that pans along a table (`scd_envs.simulators.panning_camera`; recipes/memory/world.sh makes the
worlds) shows a world four frames at rest, pans away until nothing of them is seen, and comes back after 30
steps to a quarter of a view from where it began. Nothing on the table moves; each table has its own things.
Measured there, of what the shown frames showed: PSNR, and by how many gray levels the middles of the things
are off.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scd_envs.simulators.panning_camera import FASTEST, RADIUS, PanningCamera, place
from scd_world.reporting.tables import table
from scd_world.world.starts import StartState
from scd_world.world.world import World

SHOWN, AWAY, WAIT = 4, 12, 8  # steps
BACK = 2  # steps fewer back than away: not quite where it began, or a copied frame would be perfect
SAME = 24.0  # gray levels: the colors of two things are further apart in 96 of 100 pairs
SPEEDS = np.concatenate([np.zeros(SHOWN - 1), np.ones(AWAY), np.zeros(WAIT), -np.ones(AWAY - BACK)])


def episode(seed: int, size: int) -> tuple[PanningCamera, np.ndarray, np.ndarray, np.ndarray]:
    """Plays one: simulator, frames (T+1, H, W, 3), states (T+1, 1), actions (T, 1); to the left or right."""
    rng, env = np.random.default_rng(seed), PanningCamera(size)
    way, room = (1, -1)[seed % 2], FASTEST * AWAY
    first = rng.uniform(0, 2 - room) if way > 0 else rng.uniform(room, 2)
    obs, _ = env.reset(seed=seed, options={"agent_pos": np.array([first])})
    seen, actions = [obs], (way * SPEEDS[:, None]).astype(np.float32)
    seen += [env.step(action)[0] for action in actions]
    return (
        env,
        np.stack([one["pixels"] for one in seen]),
        np.stack([one["agent_pos"] for one in seen]),
        actions,
    )


def imagine(
    world: World, frames: np.ndarray, states: np.ndarray, actions: np.ndarray, seed: int
) -> np.ndarray:
    """Gives the imagined frames (B, T+1−SHOWN, H, W, 3) of episodes (B, …)."""
    starts = [
        StartState(
            f[:SHOWN, None], s[:SHOWN], a[: SHOWN - 1], np.concatenate([s[0], np.full(1, np.nan, np.float32)])
        )
        for f, s, a in zip(frames, states, actions, strict=True)
    ]
    state, generator = world.reset(starts), torch.Generator().manual_seed(seed)
    drawn = []
    for i in range(SHOWN - 1, actions.shape[1]):
        noise = torch.randn(len(starts), *world.frame_shape, generator=generator)
        state = world.step(state, actions[:, i], noise)
        drawn.append(world.outputs(state)["pixels"][:, 0])
    return np.stack(drawn, axis=1)


def measure(
    env: PanningCamera, first: float, last: float, image: np.ndarray, true: np.ndarray
) -> dict[str, Any]:
    """Compares an image with the true one, both (H, W, 3) of the view at `last`, where `first` showed it."""
    size = env.size
    left, right = (round(size * np.clip(edge - last, 0, 1)) for edge in (first, first + 1))
    error = np.square(image[:, left:right].astype(float) - true[:, left:right]).mean()
    off = []
    for x, y in env.places:
        both = all(view + RADIUS <= x <= view + 1 - RADIUS for view in (first, last))
        if both:
            spot = np.s_[
                round(size * (y - RADIUS / 3)) : round(size * (y + RADIUS / 3)),
                round(size * (x - last - RADIUS / 3)) : round(size * (x - last + RADIUS / 3)),
            ]
            off.append(np.abs(image[spot].astype(float).mean((0, 1)) - true[spot].mean((0, 1))).mean())
    return {"psnr": 10 * np.log10(255**2 / max(error, 1e-3)), "off": off}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("worlds", nargs="+", type=Path, help="folders of worlds of the panning camera")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    given = parser.parse_args()
    worlds = {str(folder): World.load(folder) for folder in given.worlds}
    size = next(iter(worlds.values())).schema.height
    played = [episode(10_000 + i, size) for i in range(given.episodes)]
    frames, states, actions = (np.stack([one[i] for one in played]) for i in (1, 2, 3))
    returned = {"copy of the last shown frame": frames[:, SHOWN - 1]}
    films = {"recorded": frames[:, SHOWN:]}
    for name, world in worlds.items():
        films[name] = imagine(world, frames, states, actions, seed=0)
        returned[name] = films[name][:, -1]
    rows, found = [], {}
    for name, images in returned.items():
        each = [
            measure(one[0], place(states[i, 0]), place(states[i, -1]), images[i], frames[i, -1])
            for i, one in enumerate(played)
        ]
        off = np.concatenate([one["off"] for one in each])
        psnr = float(np.mean([one["psnr"] for one in each]))
        found[name] = {
            "psnr": psnr,
            "off": float(off.mean()),
            "same": float((off < SAME).mean()),
            "things": len(off),
        }
        rows.append([name, f"{psnr:.2f}", f"{off.mean():.1f}", f"{(off < SAME).mean():.0%} of {len(off)}"])
    print(table(["after 30 steps", "PSNR, dB", "colors off, gray levels", "same color"], rows))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "leave_and_return.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    steps = [0, 4, 8, 12, 19, 24, 27, 29]
    strip = np.concatenate(
        [
            np.concatenate([np.concatenate(film[i][steps], axis=1) for film in films.values()])
            for i in range(3)
        ]
    )
    Image.fromarray(strip).save(given.out / "leave_and_return.png")


if __name__ == "__main__":
    main()
