"""From a data config to the window store that training and evaluation read."""

from __future__ import annotations

from pathlib import Path

from scd_datasets.check import open_folder, open_or_build
from scd_datasets.config import SourceConfig
from scd_datasets.store import WindowStore
from scd_world.config import DataConfig
from scd_world.model_config import check_patch


def open_store(data: DataConfig, out: Path, patch: int | None = None) -> WindowStore:
    """The store that `data` names; a LeRobotDataset's is built under `out` where it is not there yet.

    A `patch` that does not divide its frames is refused before thousands of them are decoded.
    """
    if data.kind == "zarr":
        if not data.root or data.repo_id:
            raise ValueError("data=zarr reads a window store on this disk: give data.root=<store.zarr> alone")
        if data.cameras or data.image_size or data.revision:
            raise ValueError(
                "data.cameras, data.image_size and data.revision choose what is read of a LeRobotDataset; a "
                f"window store is read as it was built: give them to scd-data, which builds {data.root}"
            )
        return WindowStore.open(data.root)
    if bool(data.root) == bool(data.repo_id):
        raise ValueError(
            "data=lerobot needs data.root=<folder of a LeRobotDataset> or data.repo_id=<user/name>; "
            f"got root={data.root}, repo_id={data.repo_id}"
        )
    source = SourceConfig(data.root, data.repo_id, data.revision, data.cameras, data.image_size)
    folder = open_folder(source)
    if patch is not None:
        check_patch(patch, *folder.size)
    return open_or_build(folder, out / "windows.zarr", data.skip_damaged)
