"""A replay buffer's zarr group on disk: a folder, a zip file, or a folder with videos beside it.

Only plain numbers in an ordinary compression are opened: zarr knows codecs that run code, pickle among them.

N rows.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import zarr
from zarr.storage import ZipStore

BUFFER, ENDS = "replay_buffer.zarr", "meta/episode_ends"
COMPRESSORS = {"blosc", "zstd", "zlib", "gzip", "lz4", "lzma", "bz2"}
RECOMPRESS = (
    "copy it once to an ordinary compression, where the program that wrote it is installed (for UMI's "
    "dataset.zarr.zip, docs/data.md has the few lines)"
)
# A chunk that is not there would read as zeros: half a download as black images.
READ = {"array.read_missing_chunks": False}


def is_replay_buffer(root: Path) -> bool:
    """Says whether a folder or zip file has a replay buffer's layout, or a folder holds one beside videos."""
    if root.is_file():
        return zip_prefix(root) is not None
    return any((folder / "data").is_dir() and (folder / ENDS).is_dir() for folder in (root, root / BUFFER))


def zip_prefix(file: Path) -> str | None:
    """Gives the folder in a zip file where a replay buffer lies, "" for the top; None where there is none."""
    if not zipfile.is_zipfile(file):
        return None
    with zipfile.ZipFile(file) as opened:
        for name in opened.namelist():
            for described in (f"{ENDS}/.zarray", f"{ENDS}/zarr.json"):
                if name == described or name.endswith(f"/{described}"):
                    return name.removesuffix(described).rstrip("/")
    return None


def open_buffer(root: Path) -> tuple[dict[str, zarr.Array], np.ndarray]:
    """Opens the arrays of the buffer's `data` by name, in order, and reads where its episodes end (E,).

    ValueError, with what to do, for a compression that is not known here, or a zip file of a rare kind.
    """
    try:
        with zarr.config.set(READ):
            if root.is_file():
                store = ZipStore(root, mode="r")
                group = zarr.open_group(store, path=zip_prefix(root) or "", mode="r")
            else:
                group = zarr.open_group(root if (root / "data").is_dir() else root / BUFFER, mode="r")
            arrays = arrays_of(group, "data")
            return arrays, np.asarray(plain(arrays_of(group, "meta")["episode_ends"])[:]).astype(np.int64)
    except NotImplementedError as error:
        raise ValueError(f"{root} cannot be read as it is zipped ({error}): unzip it to a folder") from error
    except ValueError as error:
        if "codec" not in str(error):
            raise
        reason = str(error).split(". ")[0]
        raise ValueError(f"{root}: {reason}; {RECOMPRESS}") from error


def why_unreadable(error: Exception) -> str:
    """Says in a line why rows cannot be read, and what a missing chunk may be."""
    reason = str(error).partition("\n")[0]
    if "chunk" in reason and "not found" in reason:
        reason += " (half a download? zarr 3 writes zeros only with config={'write_empty_chunks': True})"
    return reason


def arrays_of(group: zarr.Group, name: str) -> dict[str, zarr.Array]:
    """Gives the arrays by name, in order, of the group's subgroup `name`."""
    found = group[name]
    if not isinstance(found, zarr.Group):
        raise ValueError(f"{name} is an array, expected a group of arrays: this is no replay buffer")
    return dict(sorted(found.arrays()))


def plain(array: zarr.Array) -> zarr.Array:
    """Gives the array itself, if it holds plain values in a compression that cannot run code; else raises
    ValueError."""
    if array.dtype.kind not in "uifb":
        raise ValueError(f"{array.store_path}: dtype {array.dtype}; expected integers, floats or bool")
    if array.metadata.zarr_format == 2:
        used = [
            codec.codec_id for codec in (array.metadata.compressor, *(array.metadata.filters or ())) if codec
        ]
        if foreign := sorted(set(used) - COMPRESSORS):
            raise ValueError(
                f"{array.store_path} is stored with {', '.join(foreign)}; expected one of "
                f"{', '.join(sorted(COMPRESSORS))} alone: {RECOMPRESS}"
            )
    return array
