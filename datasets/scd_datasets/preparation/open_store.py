"""From a data config to the window store that training and evaluation read."""

from __future__ import annotations

import logging
import math
from dataclasses import fields, replace
from pathlib import Path

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.build import build_once, digests_of
from scd_datasets.sources.images import MULTIPLE
from scd_datasets.sources.lerobot.features import ACTION, ENVIRONMENT_STATE, STATE
from scd_datasets.sources.lerobot.metadata import INFO
from scd_datasets.sources.open_source import is_other_recording, open_source
from scd_datasets.sources.source import Source
from scd_datasets.store.store import REPORT, WindowStore
from scd_world.robot_data.compatibility import check_actions, check_names, check_rate
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.checks import check_patch

log = logging.getLogger(__name__)
SAME_SHAPE = 0.06  # of the proportions: what whole patches cost


def open_store(
    data: DataConfig,
    out: Path,
    patch: int | None = None,
    needed: bool = False,
    world: DataSchema | None = None,
    cell: int = 1,
) -> WindowStore:
    """Opens the store that `data` names; a dataset's is built at `out`/windows.zarr if missing or stale.

    patch: images are resized so that it, in cells of so many pixels, divides them; where it does not all the
    same, ValueError comes before thousands of them are decoded.
    needed: a training goes on with the store as it is: a stale one raises ValueError, and is not rebuilt.
    world: what is to read it: a recording comes in its size, where no other is asked for, and one at another
    rate, or of another robot, raises ValueError before it is decoded.
    """
    store = _open_store(data, out, patch, needed, world, cell)
    if store.imagined:
        log.warning(
            "%s was %s: to learn from it, or to measure against it, is to believe that world",
            data.root or data.repo_id,
            store.imagined,
        )
    return store


def _open_store(
    data: DataConfig, out: Path, patch: int | None, needed: bool, world: DataSchema | None, cell: int
) -> WindowStore:
    if data.kind == "zarr":
        if not data.root or data.repo_id:
            raise ValueError("data=zarr reads a folder on this disk: give data.root=<store.zarr> alone")
        if (Path(data.root) / INFO).is_file():
            raise ValueError(f"{data.root} is a LeRobotDataset, and data=zarr reads none: give data=lerobot")
        if not is_other_recording(Path(data.root)):
            check_no_read_options(data)
            store = WindowStore.open(data.root)
            if patch is not None:
                check_patch(patch, store.schema.height, store.schema.width, cell, is_store=True)
            return store
    if bool(data.root) == bool(data.repo_id):
        raise ValueError(
            "data=lerobot needs data.root=<folder of a LeRobotDataset> or data.repo_id=<user/name>; "
            f"got root={data.root}, repo_id={data.repo_id}"
        )
    source = open_source(data, MULTIPLE if patch is None else patch * cell)
    if world is not None:
        source = in_its_size(world, source, data)
        check_recording_of(world, source, data.stride)
    if patch is not None:
        check_patch(patch, source.grid.height, source.grid.width, cell)
    return open_or_build(source, out / "windows.zarr", data.skip_damaged, needed=needed)


def in_its_size(world: DataSchema, source: Source, data: DataConfig) -> Source:
    """Gives a recording in the size that a world was trained with, where no other is asked for and its images
    have that shape."""
    in_it = (source.grid.height, source.grid.width) == (world.height, world.width)
    if in_it or data.image_size is not None or not source.sizes:
        return source
    height, width = min(source.sizes.values(), key=math.prod)
    if abs(width * world.height / (height * world.width) - 1) > SAME_SHAPE:
        return source
    # Both sides are multiples of what divides them both: the longer one comes out as the world's.
    both = math.gcd(world.height, world.width)
    return open_source(replace(data, image_size=min(world.height, world.width)), both)


def check_recording_of(world: DataSchema, source: Source, stride: int) -> None:
    """Raises ValueError where a world cannot read a recording as its own, before it is decoded."""
    check_actions(world, source.names(ACTION), source.root)
    check_rate(world, source.fps, source.root, stride)
    found = {"cameras": tuple(source.sizes), "agent_pos": source.names(STATE), "action": source.names(ACTION)}
    check_names(world, found | {"environment_state": source.names(ENVIRONMENT_STATE)}, source.root)


def check_no_read_options(data: DataConfig) -> None:
    """Raises ValueError for settings that a window store cannot follow: it is read as it was built."""
    usual = DataConfig()
    names = [field.name for field in fields(SourceConfig) if field.name not in ("root", "repo_id")]
    if given := [f"data.{name}" for name in names if getattr(data, name) != getattr(usual, name)]:
        raise ValueError(
            f"{', '.join(given)}: how a dataset is read. A window store is read as it was built: give "
            f"this to scd-data, which builds {data.root}"
        )


def open_or_build(
    source: Source,
    out: str | Path,
    skip_bad: bool = False,
    in_memory: bool | None = None,
    needed: bool = False,
) -> WindowStore:
    """Opens the window store of a dataset at `out`; builds it if it is missing or the dataset has changed.

    Building logs the check's report, which lies in the store; what is found is logged in a line. in_memory:
    as for `WindowStore.open`. A changed dataset whose old store is `needed` raises ValueError.
    """
    out = Path(out)
    began_with = WindowStore.open(out, in_memory=False).source if needed and out.exists() else None
    if began_with is not None and began_with not in digests_of(source, skip_bad):
        raise ValueError(
            f"{source.root}, or what is read of it, has changed since {out} was built of it, and the "
            f"training in {out.parent} began with that. To go on as it began: data=zarr data.root={out}. To "
            f"learn from what is there now: another out=, with init={out.parent / 'world'} if it is to start "
            "from this"
        )
    found, report = build_once(source, out, skip_bad)
    verdict = report.partition("\n")[0]  # of what was decoded before, the report was read before
    log.info("%s", f"{found} ({verdict}; {out / REPORT})" if found else report)
    return WindowStore.open(out, in_memory)
