"""From a data config to the window store that training and evaluation read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from scd_datasets.check import open_or_build, open_source
from scd_datasets.config import SourceConfig
from scd_datasets.hdf5_recording import hdf5_file
from scd_datasets.lerobot_features import MULTIPLE
from scd_datasets.replay_buffer import is_replay_buffer
from scd_datasets.store import WindowStore
from scd_world.config import DataConfig
from scd_world.model_config import check_patch


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
    chosen = {field.name: getattr(data, field.name) for field in fields(SourceConfig)}
    source = open_source(SourceConfig(**chosen), patch or MULTIPLE)
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
