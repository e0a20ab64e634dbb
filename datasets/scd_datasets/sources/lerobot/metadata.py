"""What a LeRobotDataset says of itself: `meta/` of version 2.0, 2.1 or 3.0, read once and checked.

A dataset may come from a hub, from another recorder or from an editor of JSON: whatever is used later has
been looked at here, and an error names the file, the field, what came and what was expected.

v2.x keeps one parquet file, and one video per camera, for each episode; v3.0 keeps many episodes in a file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scd_datasets.sources.lerobot.features import LOW_DIM, Feature, is_set_aside
from scd_datasets.sources.lerobot.keys import rename
from scd_datasets.sources.paths import fill
from scd_datasets.sources.source import EpisodeIndex, Finding, VideoSpan, listed

INFO, EPISODES = "meta/info.json", "meta/episodes"
VERSIONS = ("v3.0", "v2.1", "v2.0")  # in the order in which a hub is asked for them
NEWER = 4  # the first number of a layout that is not known yet
LARGEST_FPS = 10_000
LARGEST_ROW = 65_536  # values; each gets a name, and what is larger is no robot's state
CHUNK = 1000  # episodes in a folder, where info.json does not say
USUAL_PATHS = {
    2: {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    },
    3: {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
}


class MetadataError(ValueError):
    """Says which field of a dataset's description cannot be understood."""

    def __init__(self, file: str | Path, what: str) -> None:
        super().__init__(f"{file}: {what}. Restore the file from a copy, or correct it")


@dataclass(frozen=True)
class Metadata:
    """Holds what `meta/` says, checked, under LeRobot's names.

    ## Attributes
    `fps`: frames per second, maybe a fraction. `features`: by key. `episodes`: where each lies, by index.
    `robot_type`: as info.json calls it. `findings`: what a user should know of it.
    """

    root: Path
    version: str
    fps: float
    robot_type: str
    features: dict[str, Feature]
    episodes: list[EpisodeIndex]
    findings: list[Finding]


def read_metadata(root: Path, keys: Mapping[str, str] | None = None) -> Metadata:
    """Reads the description of the dataset in folder `root`.

    keys: the recorder's name of a feature → LeRobot's, where they differ.

    Raises FileNotFoundError where there is no dataset, and ValueError (MetadataError) for what cannot be
    understood.
    """
    file = root / INFO
    if not file.is_file():
        if (root / "meta" / "episode_ends" / "zarr.json").is_file():
            raise FileNotFoundError(f"{root} is a window store, which scd-data has built: give data=zarr")
        raise FileNotFoundError(
            f"no dataset at {root}: neither a LeRobotDataset (meta/info.json; scd-record makes one) nor a "
            "replay buffer (data/, meta/episode_ends)"
        )
    info = _read_json(file)
    version, fps = _version(file, info), _fps(file, info)
    features, findings = rename(_features(file, info), keys or {}, file)
    _check_row_sizes(file, features)
    major = int(version[1])
    rows = _rows_v3(root) if major == 3 else _rows_v2(root)
    if not rows:
        raise ValueError(f"{root} holds no episode ({EPISODES} lists none); record some with scd-record")
    rows, repeated = _without_repetitions(rows, root / EPISODES)
    paths = {name: _text(file, info, name) for name in USUAL_PATHS[major]}
    episodes = _locate(rows, features, paths, info, root)
    if paths != USUAL_PATHS[major] and (missing := _missing(root, episodes)):
        usual = _locate(rows, features, USUAL_PATHS[major], info, root)
        if _missing(root, usual) < missing:
            episodes = usual
            what = f"data_path and video_path lead to {missing} files that are not there"
            findings.append(
                Finding(what, INFO, "the files lie in LeRobot's usual layout, and are read from there")
            )
    findings += repeated + _count_findings(file, info, episodes)
    return Metadata(root, version, fps, str(info.get("robot_type") or ""), features, episodes, findings)


# ---- info.json ----------------------------------------------------------------------------------------


def _read_json(file: Path) -> dict[str, Any]:
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MetadataError(file, f"is not JSON ({error})") from error
    if not isinstance(info, dict):
        raise MetadataError(file, f"holds a {type(info).__name__}, expected an object")
    return info


def _version(file: Path, info: dict[str, Any]) -> str:
    version, root = info.get("codebase_version"), file.parent.parent
    number = re.match(r"v?([0-9]+)", version[:20]) if isinstance(version, str) else None
    major = int(number[1]) if number else 0
    if isinstance(version, str) and version.startswith(("v2", "v3")) and major in USUAL_PATHS:
        return version
    what = f"{root} has LeRobotDataset version {_short(version)}"
    if major >= NEWER:
        raise ValueError(
            f"{what}, which is newer than what this version reads ({', '.join(VERSIONS)}): update scd_world"
        )
    raise ValueError(
        f"{what}, and {', '.join(VERSIONS)} are read. "
        "Bring a copy of it to v2.0 by the script of a LeRobot release before 0.4, without a push"
    )


def _fps(file: Path, info: dict[str, Any]) -> float:
    fps = info.get("fps")
    # compared, not converted: JSON has whole numbers that no float holds; NaN is in no range
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps <= LARGEST_FPS:
        what = f"expected a number of frames per second above 0, at most {LARGEST_FPS:,}"
        raise MetadataError(file, f"fps is {_short(fps)}, {what}")
    return int(fps) if fps == int(fps) else float(fps)


def _features(file: Path, info: dict[str, Any]) -> dict[str, Feature]:
    found = info.get("features")
    if not isinstance(found, dict) or not found:
        raise MetadataError(file, f"features is {_short(found)}, expected {{name: {{dtype, shape, …}}}}")
    return {key: _feature(file, key, values) for key, values in found.items()}


def _feature(file: Path, key: str, values: Any) -> Feature:
    if not isinstance(values, dict) or not isinstance(values.get("dtype"), str):
        raise MetadataError(file, f"feature {key} is {_short(values)}, expected {{dtype: …, shape: […]}}")
    shape = values.get("shape", [1])
    if not isinstance(shape, list | tuple) or not all(_is_whole(n) and n > 0 for n in shape):
        raise MetadataError(file, f"feature {key} has shape {_short(shape)}, expected whole numbers above 0")
    if values["dtype"] in ("image", "video") and len(shape) != 3:
        what = f"camera {key} has shape {_short(shape)}, expected [height, width, channels]"
        raise MetadataError(file, what)
    flags: dict[str, Any] = {}
    for name in ("info", "video_info"):
        flags |= values[name] if isinstance(values.get(name), dict) else {}
    depth = bool(flags.get("is_depth_map") or flags.get("video.is_depth_map"))
    return Feature(key, values["dtype"], tuple(map(int, shape)) or (1,), values.get("names"), depth)


def _check_row_sizes(file: Path, features: Mapping[str, Feature]) -> None:
    """Raises MetadataError for a feature whose rows cannot be numbers of a robot; of those that are read."""
    for key in LOW_DIM:
        if key in features and features[key].row_size > LARGEST_ROW:
            has = f"feature {features[key].stored} has shape {_short(list(features[key].shape))}"
            raise MetadataError(file, f"{has}, expected at most {LARGEST_ROW:,} values in a row of {key}")


def _text(file: Path, info: dict[str, Any], name: str) -> str:
    """Gives the path template `name`, the usual one where info.json has none."""
    value = info.get(name)
    if value is None:
        return USUAL_PATHS[int(info["codebase_version"][1])][name]
    if not isinstance(value, str):
        raise MetadataError(file, f"{name} is {_short(value)}, expected a path")
    return value


def _missing(root: Path, episodes: list[EpisodeIndex]) -> int:
    """Counts the files that are named and not there."""
    files = {file for e in episodes for file in (e.file, *(span.file for span in e.videos.values()))}
    return sum(not (root / file).is_file() for file in files)


def _count_findings(file: Path, info: dict[str, Any], episodes: list[EpisodeIndex]) -> list[Finding]:
    listed = len(episodes), sum(episode.length for episode in episodes)
    said = info.get("total_episodes", listed[0]), info.get("total_frames", listed[1])
    if said == listed:
        return []
    what = f"info.json says {said[0]} episodes and {said[1]} frames, {EPISODES} lists {listed[0]} and "
    what += str(listed[1])
    return [Finding(what, INFO, "the list is followed")]


# ---- the list of episodes -----------------------------------------------------------------------------


def _rows_v3(root: Path) -> list[dict[str, Any]]:
    import pyarrow as pa  # imported where a file is opened: a window store is read without it
    import pyarrow.parquet as pq

    rows = []
    for file in sorted((root / EPISODES).glob("*/*.parquet")):
        try:
            names = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
            found = pq.read_table(file, columns=names).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}): the list of its episodes is lost; restore it from a copy"
            ) from error
        rows += [_row(file, number, row) for number, row in enumerate(found)]
    return rows


def _rows_v2(root: Path) -> list[dict[str, Any]]:
    file = root / "meta" / "episodes.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}, in which a LeRobotDataset v2 lists its episodes")
    return [_row(file, number, values) for number, values in _lines(file)]


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MetadataError(file, f"line {number + 1} is not JSON ({error})") from error


def _row(file: Path, number: int, row: Any) -> dict[str, Any]:
    """Checks what every version says of an episode: index, length, tasks."""
    if not isinstance(row, dict):
        raise MetadataError(file, f"row {number} is {_short(row)}, expected {{episode_index, length, tasks}}")
    index, length = (_whole(file, number, row, name) for name in ("episode_index", "length"))
    if length < 1 or index < 0:
        raise MetadataError(file, f"row {number}: episode {index} has length {length}, expected 1 or more")
    tasks = row.get("tasks")
    tasks = [tasks] if isinstance(tasks, str) else tasks or []
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise MetadataError(file, f"row {number}: tasks is {_short(tasks)}, expected a list of texts")
    return row | {"episode_index": index, "length": length, "tasks": tasks, "row": number, "list": file}


def _without_repetitions(
    rows: list[dict[str, Any]], where: Path
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Gives each episode once: its twin would be trained on, and held out as well."""
    first: dict[int, dict[str, Any]] = {}
    repeated = []
    for row in rows:
        known = first.setdefault(row["episode_index"], row)
        if known is row:
            continue
        if known["length"] != row["length"]:
            lengths = f"with {known['length']} and with {row['length']} steps"
            raise MetadataError(where, f"episode {row['episode_index']} is listed twice, {lengths}")
        repeated.append(row["episode_index"])
    found = []
    if repeated:
        what = f"listed more than once: episode {listed(repeated)}"
        found = [Finding(what, EPISODES, "each is read once")]
    return [first[index] for index in sorted(first)], found


def _locate(
    rows: list[dict[str, Any]],
    features: Mapping[str, Feature],
    paths: Mapping[str, str],
    info: dict[str, Any],
    root: Path,
) -> list[EpisodeIndex]:
    videos = {
        key: feature
        for key, feature in features.items()
        if feature.dtype == "video" and not is_set_aside(key, feature)
    }
    size = info.get("chunks_size", CHUNK)
    if not _is_whole(size) or size < 1:
        raise MetadataError(root / INFO, f"chunks_size is {_short(size)}, expected 1 or more")
    by_version = _episode_v3 if info["codebase_version"].startswith("v3") else _episode_v2
    return [by_version(row, videos, paths, int(size)) for row in rows]


def _episode_v3(
    row: dict[str, Any], videos: Mapping[str, Feature], paths: Mapping[str, str], _size: int
) -> EpisodeIndex:
    def file(template: str, part: str, **keys: str) -> str:
        where = {
            f"{name}_index": _whole(row["list"], row["row"], row, f"{part}/{name}_index")
            for name in ("chunk", "file")
        }
        return fill(template, **where, **keys)

    def span(stored: str) -> VideoSpan:
        part = f"videos/{stored}"
        start = _seconds(row, f"{part}/from_timestamp")
        end = _seconds(row, f"{part}/to_timestamp") if f"{part}/to_timestamp" in row else None
        return VideoSpan(file(paths["video_path"], part, video_key=stored), start, end)

    return EpisodeIndex(
        index=row["episode_index"],
        length=row["length"],
        tasks=tuple(row["tasks"]),
        file=file(paths["data_path"], "data"),
        videos={key: span(feature.stored) for key, feature in videos.items()},
    )


def _episode_v2(
    row: dict[str, Any], videos: Mapping[str, Feature], paths: Mapping[str, str], size: int
) -> EpisodeIndex:
    where = {"episode_index": row["episode_index"], "episode_chunk": row["episode_index"] // size}
    return EpisodeIndex(
        index=row["episode_index"],
        length=row["length"],
        tasks=tuple(row["tasks"]),
        file=fill(paths["data_path"], **where),
        videos={
            key: VideoSpan(fill(paths["video_path"], video_key=feature.stored, **where), 0.0)
            for key, feature in videos.items()
        },
    )


# ---- values -------------------------------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    """Says whether it is a whole number, however it is written: 12 or 12.0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0


def _whole(file: Path, number: int, row: Mapping[str, Any], name: str) -> int:
    if name not in row:
        raise MetadataError(file, f"has no column {name}, only {', '.join(sorted(map(str, row)))}")
    if not _is_whole(row[name]):
        raise MetadataError(file, f"row {number}: {name} is {_short(row[name])}, expected a whole number")
    return int(row[name])


def _seconds(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise MetadataError(row["list"], f"row {row['row']}: {name} is {_short(value)}, expected seconds")
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def without_cameras(metadata: Metadata, keys: set[str]) -> Metadata:
    """Gives the description without these cameras."""
    features = {key: feature for key, feature in metadata.features.items() if key not in keys}
    episodes = [episode.of_cameras(features) for episode in metadata.episodes]
    return replace(metadata, features=features, episodes=episodes)
