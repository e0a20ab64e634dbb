"""From a data config to the window store that training and evaluation read."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.check import check_dataset, source_digest
from scd_datasets.sources.hdf5_recording import hdf5_file
from scd_datasets.sources.lerobot_features import MULTIPLE
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.replay_buffer import is_replay_buffer
from scd_datasets.sources.source import Source
from scd_datasets.store.store import WindowStore
from scd_world.utils.checks import check_patch

log = logging.getLogger(__name__)


def open_store(data: DataConfig, out: Path, patch: int | None = None, needed: bool = False) -> WindowStore:
    """The store that `data` names; a dataset's is built under `out` where it is not there yet, or no more as
    the dataset is. ValueError instead where it is `needed` as it was.

    Pictures are resized so that `patch` fits; one that does not divide the frames all the same is refused
    before thousands of them are decoded.
    """
    if data.kind == "zarr":
        if not data.root or data.repo_id:
            raise ValueError("data=zarr reads a folder on this disk: give data.root=<store.zarr> alone")
        if not is_replay_buffer(Path(data.root)) and not hdf5_file(Path(data.root)):
            refuse_choices(data)
            return WindowStore.open(data.root)
    if bool(data.root) == bool(data.repo_id):
        raise ValueError(
            "data=lerobot needs data.root=<folder of a LeRobotDataset> or data.repo_id=<user/name>; "
            f"got root={data.root}, repo_id={data.repo_id}"
        )
    source = open_source(data, patch or MULTIPLE)
    if patch is not None:
        check_patch(patch, source.grid.height, source.grid.width)
    return open_or_build(source, out / "windows.zarr", data.skip_damaged, needed=needed)


def refuse_choices(data: DataConfig) -> None:
    """A window store is read as it was built."""
    usual = DataConfig()
    names = [field.name for field in fields(SourceConfig) if field.name not in ("root", "repo_id")]
    if given := [f"data.{name}" for name in names if getattr(data, name) != getattr(usual, name)]:
        raise ValueError(
            f"{', '.join(given)}: what is read of a dataset. A window store is read as it was built: give "
            f"this to scd-data, which builds {data.root}"
        )


def open_or_build(
    source: Source,
    out: str | Path,
    skip_bad: bool = False,
    in_memory: bool | None = None,
    needed: bool = False,
) -> WindowStore:
    """The window store of a dataset at `out`: built if it is not there or the dataset has changed since.

    Building logs the check's report and leaves it beside the store. A store that is `needed` as it is, by a
    training that can only go on with it, is not built again: ValueError.
    """
    out = Path(out)
    told = out.with_suffix(".txt")
    if out.exists() and WindowStore.open(out, in_memory=False).source == source_digest(source, skip_bad):
        log.info("the dataset has not changed since it was checked, see %s", told)
        return WindowStore.open(out, in_memory)
    if needed and out.exists():
        raise ValueError(
            f"{source.root}, or what is read of it, has changed since {out} was built of it, and the "
            f"training in {out.parent} began with that. To go on as it began: data=zarr data.root={out}. To "
            f"learn from what is there now: another out=, with init={out.parent / 'world'} if it is to start "
            "from this"
        )
    report = check_dataset(source, out, skip_bad).table()
    log.info("%s", report)
    told.write_text(report + "\n", encoding="utf-8")
    return WindowStore.open(out, in_memory)
