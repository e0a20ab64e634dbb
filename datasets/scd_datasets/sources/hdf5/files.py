"""HDF5 files, opened so that they can read nothing but themselves; rows that were never written are damage.

N rows.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from scd_datasets.sources.lerobot.video_files import file_fault

SUFFIXES = (".h5", ".hdf5")


def hdf5_files(root: Path) -> list[Path]:
    """Finds the HDF5 file that `root` names, or the ones in it, in the order of their numbers; [] if there
    is none.

    Raises ValueError where a folder holds several whose names differ by more than numbers: they are no
    episodes of one recording.
    """
    if root.suffix in SUFFIXES and not root.is_dir():
        return [root]
    if not root.is_dir() or (root / "meta").is_dir():  # a LeRobotDataset may keep one beside it
        return []
    found = sorted(file for file in root.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len({re.sub(r"\d+", "", file.name) for file in found}) > 1:
        raise several(root, found)
    return sorted(found, key=lambda file: [int(number) for number in re.findall(r"\d+", file.stem)])


def several(root: Path, files: list[Path]) -> ValueError:
    """Gives the error of a folder in which each file is a recording."""
    names = ", ".join(file.name for file in files[:8]) + (", …" if len(files) > 8 else "")
    return ValueError(f"{root} holds several recordings ({names}): name one, data.root={files[0]}")


def open_file(file: Path) -> Any:
    """Opens the file, an `h5py.File`; ValueError where it cannot be, with what to do."""
    try:
        import h5py
        import hdf5plugin  # noqa: F401 (brings the compressions that published recordings use)
    except ImportError as error:
        raise ValueError(
            f"{file} is HDF5, which an extra reads: pip install 'lerobot_env_scd_world[hdf5]' ({error})"
        ) from error
    if not file.is_file():
        raise FileNotFoundError(f"no recording at {file}")
    if fault := file_fault(file):
        raise ValueError(f"{file} {fault}; or restore it from a copy")
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ValueError(
            f"{file} cannot be opened ({error}): restore it from a copy, or let its writer finish"
        ) from error


def top_names(file: Path) -> list[str]:
    """Lists what lies at the top of a file, a slash behind a group's name; follows no link."""
    with open_file(file) as opened:
        return [f"{name}/" if _is_group(opened, name) else name for name in opened]


def _is_group(group: Any, name: str) -> bool:
    import h5py

    return isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Group)


def group_in(group: Any, name: str) -> Any:
    """Gives the group of that name in an open file or group, None where there is none; ValueError for a
    link, maybe to another file."""
    import h5py

    if group.get(name, getlink=True) is None:
        return None
    _refuse_link(group, name)
    return group[name] if isinstance(group[name], h5py.Group) else None


def group_at(group: Any, path: str) -> Any:
    """Gives the group at a path of the group's, itself for ""; ValueError where there is none, or a link."""
    for inner in path.split("/") if path else ():
        group = group_in(group, inner)
        if group is None:
            raise ValueError(f"has no {path}")
    return group


def arrays_in(group: Any, depth: int = 0, prefix: str = "", only: str = "") -> dict[str, Any]:
    """Gives the group's arrays by name; with `depth`, also those in its groups (`obs/image`), and so on.

    only: the name of the one that is wanted, all by default.
    Raises ValueError where one lies in another file.
    """
    import h5py

    arrays: dict[str, Any] = {}
    for name in [only] * (only in group) if only else group:
        path = f"{prefix}{name}"
        _refuse_link(group, name)
        item = group[name]
        if isinstance(item, h5py.Group) and depth:
            arrays |= arrays_in(item, depth - 1, f"{path}/")
        if not isinstance(item, h5py.Dataset):
            continue
        if item.is_virtual or item.external:
            raise ValueError(
                f"{group.file.filename}: the values of {path} lie in other files; copy them into this one"
            )
        arrays[path] = item
    return arrays


def array_at(group: Any, path: str) -> Any:
    """Gives the array at a path of the group's; ValueError where there is none, or where it lies in another
    file."""
    *groups, name = path.split("/")
    found = arrays_in(group_at(group, "/".join(groups)), only=name)
    if name not in found:
        raise ValueError(f"has no {path}")
    if not found[name].shape:
        raise ValueError(f"{path} is a single value, expected one for each step")
    return found[name]


def read_rows(array: Any, first: int, length: int, every: int = 1) -> Any:
    """Reads every n-th of rows (length, …), fewer where the array ends before; OSError where a part was never
    written."""
    if unwritten(array, first, length):
        raise OSError("a part of these rows was never written")
    return array[first : first + length : every]


def unwritten(array: Any, first: int, length: int) -> bool:
    """Says whether a chunk of these rows is missing in the file: HDF5 reads it as zeros, a black image."""
    if array.chunks is None:
        return False
    rows = min(first + length, array.shape[0])
    step, *steps = array.chunks
    corners = itertools.product(
        range(first - first % step, rows, step),
        *(range(0, size, step) for size, step in zip(array.shape[1:], steps, strict=True)),
    )
    return any(array.id.get_chunk_info_by_coord(corner).byte_offset is None for corner in corners)


def _refuse_link(group: Any, name: str) -> None:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(
            f"{group.file.filename}: {name} is a link, maybe to another file; expected arrays alone"
        )
