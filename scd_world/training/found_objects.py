"""Where the objects in a recording's pictures are: found once, before anything is learnt from them.

What they look like is learnt from frames of the training episodes; then they are followed through all
episodes.

R recorded frames, F frames of the store, N numbers that are found.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scd_datasets.store.statistics import background
from scd_datasets.store.store import WindowStore, rows_of
from scd_world.objects.discover import STANDS_OUT, discover
from scd_world.objects.expected import Recorded, unit
from scd_world.objects.finder import KnownObject, ObjectFinder
from scd_world.objects.scenes import Scenes
from scd_world.robot_data.normalizer import decode_pixels
from scd_world.utils.atomic_folder import replace_file

log = logging.getLogger(__name__)
LOOKED_AT = 600  # frames in which objects are looked for
MOST_BYTES = 2**29  # of the frames that tell what is expected
POOL = 8000  # of them, at most
STILL = 1 / 3  # share of a camera's picture that may change, where it stands still
TOGETHER = 64  # episodes that are followed side by side


class RobotPictures:
    """Frames of the training episodes by how the robot stands: what a camera sees but for the objects."""

    def __init__(self, store: WindowStore, episodes: np.ndarray, seed: int) -> None:
        self.store, cameras = store, range(len(store.schema.cameras))
        rows = rows_of(store.starts, store.lengths, episodes)
        state = torch.from_numpy(store.state[rows, : len(store.schema.agent_pos)])
        self.mean, self.scale = state.mean(0), state.std(0, correction=0).clamp_min(1e-6)
        schema = store.schema
        frame = schema.channels * schema.height * schema.width
        rng = np.random.default_rng(seed)
        some = np.sort(rng.permutation(rows)[: max(1, min(POOL, MOST_BYTES // frame))])
        pixels = torch.from_numpy(store.pixels_of_rows(some)).movedim(-1, 2)  # (R, V, 3, H, W)
        self.background = decode_pixels(background(store, episodes)).movedim(-1, 1)  # uint8 (V, 3, H, W)
        states, of = self.standing(some), torch.from_numpy(episode_of(store, some))
        self.recorded = [
            Recorded(pixels[:, camera].contiguous(), states, of, self.background[camera])
            for camera in cameras
        ]
        self.looked_at = np.sort(rng.permutation(rows)[:LOOKED_AT])

    def standing(self, rows: np.ndarray) -> Tensor:
        """Gives how the robot stands in rows of the store, each number's deviation 1."""
        state = torch.from_numpy(self.store.state[rows, : len(self.store.schema.agent_pos)])
        return (state - self.mean) / self.scale

    def moving_share(self, camera: int, frames: Tensor) -> float:
        """Gives which share of a frame, of uint8 (F, 3, H, W), is usually not as the background is."""
        apart = (unit(frames) - unit(self.background[camera])).abs().amax(1) > STANDS_OUT
        return apart.float().mean((1, 2)).median().item()

    def scenes(self, camera: int, frames: Tensor, rows: np.ndarray) -> Scenes:
        """Gives frames uint8 (F, 3, H, W) of these rows of the store, with what is expected in them."""
        episode = torch.from_numpy(episode_of(self.store, rows))
        return self.recorded[camera].scenes(frames, self.standing(rows), episode)


def episode_of(store: WindowStore, rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(store.starts, rows, side="right") - 1


def find_objects(store: WindowStore, episodes: np.ndarray, most: int, seed: int) -> ObjectFinder:
    """Finds what a robot may move, up to `most` objects in each camera's pictures; says what it found.

    ValueError where there is none, or a single episode: what is the robot others tell.
    """
    if len(episodes) < 2:
        raise ValueError(
            f"codec.objects={most}: in {len(episodes)} training episode(s) nobody can tell an object from "
            "the robot: record more, or set codec.objects=0"
        )
    pictures = RobotPictures(store, episodes, seed)
    rows = pictures.looked_at
    frames = torch.from_numpy(store.pixels_of_rows(rows)).movedim(-1, 2)
    standing, of = pictures.standing(rows), torch.from_numpy(episode_of(store, rows))
    objects: list[KnownObject] = []
    for camera, name in enumerate(store.schema.cameras):
        if (share := pictures.moving_share(camera, frames[:, camera])) > STILL:
            log.info("%s does not stand still (%.0f %% of it changes): nothing is sought", name, 100 * share)
            continue
        scenes = pictures.scenes(camera, frames[:, camera].contiguous(), rows)
        told = partial(pictures.recorded[camera].tells, standing, of)
        for found in discover(scenes, most, seed, told):
            sprite = found.sprite
            turns = "its turn can be told" if sprite.turns else "its turn cannot be told"
            log.info(
                "%s: found an object of %.0f px, %s; it explains %.0f %% of what the robot does not",
                name, 2 * sprite.radius, turns, 100 * min(1.0, found.share),
            )  # fmt: skip
            objects.append(KnownObject(camera, sprite))
    if not objects:
        raise ValueError(
            f"codec.objects={most}: in the pictures of {', '.join(store.schema.cameras)} nothing rigid was "
            "found that moves on its own before a still background: set codec.objects=0"
        )
    return ObjectFinder(unit(pictures.background), objects)


def follow_objects(store: WindowStore, finder: ObjectFinder, episodes: np.ndarray, out: Path) -> np.ndarray:
    """Follows the objects through all episodes: (F, N). An interrupted call goes on where it was.

    episodes: those of the training; out: the store that is to be written, beside which pieces are kept.
    """
    pictures = RobotPictures(store, episodes, 0)
    order = np.argsort(-store.lengths, kind="stable")
    digest = hashlib.sha256(f"{store.fingerprint} {episodes.tolist()}".encode())
    for value in finder.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    pieces = out.with_name(f".{out.name}.{digest.hexdigest()[:12]}.npz")
    done: dict[str, np.ndarray] = dict(np.load(pieces)) if pieces.exists() else {}
    with tqdm(total=len(store.state), desc="finding objects", unit="frame", mininterval=10) as bar:
        for first in range(0, len(order), TOGETHER):
            if str(first) not in done:
                done[str(first)] = follow_episodes(pictures, finder, order[first : first + TOGETHER], bar)
                replace_file(pieces, lambda file: save(file, done))
            else:
                bar.update(int(np.isfinite(done[str(first)][..., 0]).sum()))
    found = np.zeros((len(store.state), done["0"].shape[-1]), np.float32)
    for first in range(0, len(order), TOGETHER):
        for episode, numbers in zip(order[first : first + TOGETHER], done[str(first)], strict=True):
            start, length = store.starts[episode], store.lengths[episode]
            found[start : start + length] = numbers[:length]
    pieces.unlink()
    return found


def save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with file.open("wb") as target:
        np.savez(target, **arrays)  # type: ignore[arg-type]


def follow_episodes(
    pictures: RobotPictures, finder: ObjectFinder, episodes: np.ndarray, bar: tqdm
) -> np.ndarray:
    """Follows the objects through some episodes, longest first: (E, T, N), NaN after an episode's end."""
    store = pictures.store
    rows = [
        store.starts[episodes[store.lengths[episodes] > t]] + t
        for t in range(int(store.lengths[episodes].max()))
    ]

    def frames() -> Iterator[Tensor]:
        for now in rows:
            yield torch.from_numpy(store.pixels_of_rows(now))
            bar.update(len(now))

    def expect(camera: int, seen: Tensor, time: int) -> Scenes:
        return pictures.scenes(camera, seen, rows[time])

    return finder.find(frames(), expect).cpu().numpy()
