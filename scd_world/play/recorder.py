"""Kept episodes into a LeRobotDataset that is marked as imagined, in the background: playing goes on.

An episode that the folder does not take stays in memory, and is tried again with the next one, when the page
asks for it, and at the end; the last resort is a folder for temporary files.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.sources.lerobot.features import ACTION, DONE, REWARD, SUCCESS
from scd_datasets.writing.episodes import Frame, to_lerobot_frame
from scd_datasets.writing.lerobot_writer import LeRobotWriter
from scd_envs.spaces import observation
from scd_world.play.pictures import from_png
from scd_world.play.session import PERSON
from scd_world.play.tape import Tape
from scd_world.robot_data.schema import DataSchema

log = logging.getLogger(__name__)
Tell = Callable[[str, str], None]  # a level, "info" or "error", and a sentence


@dataclass(frozen=True)
class Target:
    """Says what a dataset of played episodes is: `LeRobotWriter`'s arguments, but for the folder."""

    schema: DataSchema
    features: dict[str, Any]
    scalars: list[str]  # of the world's info that become features
    recipe: dict[str, Any]
    imagined: dict[str, Any]  # the marks
    policy_kwargs: dict[str, Any]  # of the policy that drives where the person does not
    store_as_video: bool


class Recorder:
    """Writes episodes one after the other, in a thread of its own; each is safe once it is written."""

    def __init__(self, out: str | Path, target: Target) -> None:
        self.out, self.target = Path(out), target
        self.unsaved: list[tuple[Tape, Tell]] = []
        self.written = 0
        self._lock = threading.Lock()  # of the two above
        self._queue: queue.Queue[None] = queue.Queue()  # an entry for each attempt
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def keep(self, tape: Tape, tell: Tell) -> None:
        """Writes an episode soon. It must not be changed any more.

        tell: called now, and, in the recorder's thread, after each attempt.
        """
        with self._lock:
            self.unsaved.append((tape, tell))
        tell("info", f"{len(tape)} frames are being written to {self.out}")
        self._queue.put(None)

    def retry(self) -> None:
        """Tries once more what the folder did not take."""
        self._queue.put(None)

    def wait(self) -> None:
        """Returns when everything that was handed over was tried."""
        self._queue.join()

    def close(self) -> None:
        """Writes what is left, elsewhere if need be, and says where."""
        self.wait()
        if self.unsaved:
            self._write_all(self.out)
        if self.unsaved:
            elsewhere = Path(tempfile.mkdtemp(prefix="scd-play-")) / "played"
            log.warning("%s does not take what was played: it goes to %s", self.out, elsewhere)
            self._write_all(elsewhere)

    def _work(self) -> None:
        while True:
            self._queue.get()
            try:
                self._write_all(self.out)
            finally:
                self._queue.task_done()

    def _write_all(self, root: Path) -> None:
        """Writes what is not saved yet, in order, up to the first that fails."""
        while True:
            with self._lock:
                if not self.unsaved:
                    return
                tape, tell = self.unsaved[0]
            try:
                index = write_episode(root, tape, self.target)
            except Exception as error:  # whatever it is, the episode is still here, and the page says so
                unexpected = not isinstance(error, OSError | ValueError)
                log.warning("not kept in %s: %s", root, error, exc_info=unexpected)
                tell("error", f"{root} did not take the episode; it is still in memory. {error}")
                return
            with self._lock:
                self.unsaved.pop(0)
                self.written += 1
            tell("info", f"kept: episode {index} of {root}, {len(tape)} frames")


def write_episode(root: Path, tape: Tape, target: Target) -> int:
    """Appends an episode to the dataset in a folder, whole or not at all; gives its index there.

    Raises OSError where the folder cannot be written, BlockingIOError while another process records into it,
    and ValueError where it holds something else, or episodes of another world.
    """
    with LeRobotWriter(
        root,
        target.schema.fps,
        target.features,
        target.recipe,
        target.store_as_video,
        imagined=target.imagined,
    ) as writer:
        task = tape.address.task or "imagined"  # LeRobot wants one
        for frame in frames_of(tape, target):
            writer.add_frame({key: frame[key] for key in target.features} | {"task": task})
        writer.save_episode(note_of(tape, target) | {"task": task})
    return writer.num_episodes - 1


def frames_of(tape: Tape, target: Target) -> Iterator[Frame]:
    """Yields LeRobot's frames, as `scd-rollout` writes them: an observation, the action that the world took
    there, and the outcome."""
    schema = target.schema
    for i in range(len(tape)):
        now, then = tape.moments[i], tape.moments[i + 1]
        pixels = np.stack([from_png(picture) for picture in now.pictures])
        assert then.action is not None
        yield to_lerobot_frame(observation(schema, pixels, now.state), schema.lerobot_keys) | {
            ACTION: then.action.astype(np.float32),
            REWARD: np.array([then.reward], np.float32),
            SUCCESS: np.array([then.success]),
            DONE: np.array([i == len(tape) - 1]),
            **{f"next.{key}": np.array([then.scalars[key]], np.float32) for key in target.scalars},
        }


def note_of(tape: Tape, target: Target) -> dict[str, Any]:
    """Gives what the dataset keeps of an episode beside its frames, in plain JSON: who drove, from where."""
    steps = tape.moments[1:]
    drivers = [str(moment.driver) for moment in steps]
    shares = {name: drivers.count(name) for name in dict.fromkeys(drivers)}
    policy = max(shares, key=lambda name: shares[name])
    return {
        "policy": policy,
        "policy_kwargs": {} if policy == PERSON else target.policy_kwargs,
        "drivers": shares,  # steps of each
        "num_steps": sorted({moment.num_steps for moment in steps if moment.num_steps}),
        "seed": tape.address.seed,
        "start_episode": tape.address.episode,
        "start_frame": tape.address.frame,
        "terminated": steps[-1].terminated,
        "means": {key: float(np.mean([moment.scalars[key] for moment in steps])) for key in target.scalars},
        "length": len(tape),
        "return": tape.total_reward if REWARD in target.features else None,
        "success": bool(steps[-1].success) if SUCCESS in target.features else None,
    }
