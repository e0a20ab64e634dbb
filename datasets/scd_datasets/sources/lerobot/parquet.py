"""Columns of a parquet file as plain numbers, and its rows' images as they were stored."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from scd_datasets.sources.paths import inside
from scd_datasets.sources.picture_files import open_image


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Converts scalars to (L,), lists, however nested, to (L, n).

    Raises ValueError for anything but numbers, and for rows of different lengths.
    """
    array: Any = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    rows, nested = len(array), False
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if not _is_list(array.type):
            break
        if array.null_count or len(pc.list_value_length(array).unique()) > 1:
            raise ValueError("its rows have different lengths")
        array, nested = array.flatten(), True
    if array.null_count:
        raise ValueError("some of its values are missing")
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "uifb":
        raise ValueError(f"it holds {array.type}, expected numbers")
    return values.reshape(rows, values.size // max(rows, 1)) if nested else values


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def read_columns(file: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Reads {name: (F, …)} of all rows; ValueError names the column that is missing or holds no numbers."""
    opened = pq.ParquetFile(file)
    if missing := [name for name in names if name not in opened.schema_arrow.names]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    table, found = opened.read(columns=names), {}
    for name in names:
        try:
            found[name] = numbers(table[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found


def row_group_sizes(file: Path) -> list[int]:
    """Gives the rows of each of the file's groups, which are read one by one."""
    metadata = pq.read_metadata(file)
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def images(column: pa.ChunkedArray, root: Path) -> Iterator[Image.Image]:
    """Yields the images of a column, opened, not yet decoded; ValueError where one is missing or too large.

    They lie in the table as {bytes, path}, or beside it as files of the dataset in folder `root`.
    """
    for value in column.to_pylist():
        stored = value if isinstance(value, dict) else {"bytes": value}
        encoded = stored.get("bytes")
        if encoded is None and isinstance(stored.get("path"), str):
            encoded = (root / inside(stored["path"])).read_bytes()
        if not isinstance(encoded, bytes):
            raise ValueError("no image is stored")
        yield open_image(io.BytesIO(encoded))
