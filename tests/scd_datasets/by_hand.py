"""A small LeRobotDataset written by hand, of any version, every detail open to change: no LeRobot needed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TOP = "observation.images.top"
SIZE, LENGTH = (32, 48), 20
V2 = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
V3 = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}


def picture(episode: int, frame: int) -> np.ndarray:
    """A gray field as bright as the frame's number says, with a dark corner in its episode's place."""
    image = np.full((*SIZE, 3), 40 + 8 * (frame % 24), np.uint8)
    image[:8, 8 * (episode % 5) : 8 * (episode % 5) + 8] = 0
    return image


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def write_video(file: Path, images: list[np.ndarray], fps: float = 10, pix_fmt: str = "yuv420p") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pix_fmt
        stream.options = {"g": "2", "crf": "4"}
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode())


def write_dataset(
    root: Path,
    version: str = "v3.0",
    episodes: int = 3,
    fps: float = 10,
    video: bool = False,
    info: dict[str, Any] | None = None,
    features: dict[str, dict[str, Any] | None] | None = None,
    columns: Callable[[dict[str, list[Any]]], None] = lambda columns: None,
    rows: Callable[[list[dict[str, Any]]], Any] = lambda rows: None,
    cameras: dict[str, Callable[[int, int], np.ndarray]] | None = None,
) -> Path:
    """Writes it, an episode's numbers in a file of its own, and gives its folder.

    info, features: what is set in info.json (None: left out). columns, rows: change an episode's table, and
    the list of episodes. cameras: key → picture of (episode, frame).
    """
    cameras = {TOP: picture} if cameras is None else cameras
    rng = np.random.default_rng(0)
    kind = "video" if video else "image"
    described: dict[str, Any] = {
        key: {"dtype": kind, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]} for key in cameras
    }
    described["observation.state"] = {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    described["action"] = {"dtype": "float32", "shape": [2], "names": ["dx", "dy"]}
    for key in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        described[key] = {"dtype": "float32" if key == "timestamp" else "int64", "shape": [1], "names": None}
    paths, listed = (V3 if version.startswith("v3") else V2), []
    for episode in range(episodes):
        where = {"episode_chunk": 0, "episode_index": episode, "chunk_index": 0, "file_index": episode}
        frames = range(LENGTH)
        table: dict[str, list[Any]] = {
            "observation.state": rng.normal(size=(LENGTH, 3)).astype(np.float32).tolist(),
            "action": rng.uniform(-1, 1, (LENGTH, 2)).astype(np.float32).tolist(),
            "timestamp": [np.float32(i / fps) for i in frames],
            "frame_index": list(frames),
            "episode_index": [episode] * LENGTH,
            "index": [LENGTH * episode + i for i in frames],
            "task_index": [0] * LENGTH,
        }
        row = {"episode_index": episode, "tasks": ["reach"], "length": LENGTH}
        row |= {"data/chunk_index": 0, "data/file_index": episode}
        for key, draw in cameras.items():
            images = [draw(episode, i) for i in frames]
            if not video:
                table[key] = [{"bytes": png(image), "path": None} for image in images]
                continue
            write_video(root / paths["video_path"].format(video_key=key, **where), images, fps)
            span = {
                "chunk_index": 0,
                "file_index": episode,
                "from_timestamp": 0.0,
                "to_timestamp": LENGTH / fps,
            }
            row |= {f"videos/{key}/{name}": value for name, value in span.items()}
        columns(table)
        file = root / paths["data_path"].format(**where)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), file)
        listed.append(row)
    rows(listed)
    for key, feature in (features or {}).items():
        described.pop(key, None) if feature is None else described.update({key: feature})
    write_metadata(root, version, listed, {
        "codebase_version": version,
        "robot_type": "so101",
        "total_episodes": episodes,
        "total_frames": LENGTH * episodes,
        "chunks_size": 1000,
        "fps": fps,
        **paths,
        "features": described,
        **(info or {}),
    })  # fmt: skip
    return root


def write_metadata(root: Path, version: str, rows: list[dict[str, Any]], info: dict[str, Any]) -> None:
    (root / "meta").mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in info.items() if value is not None}
    (root / "meta" / "info.json").write_text(json.dumps(kept))
    if version.startswith("v3"):
        file = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        kept_rows = [
            {key: row[key] for key in ("episode_index", "tasks", "length") if key in row} for row in rows
        ]
        (root / "meta" / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept_rows))
