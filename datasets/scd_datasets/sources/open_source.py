"""From a source's settings to the reader of its layout: LeRobotDataset, replay buffer or HDF5."""

from __future__ import annotations

from pathlib import Path

from scd_datasets.config import SourceConfig
from scd_datasets.sources.hdf5.episodes import Hdf5Episodes
from scd_datasets.sources.hdf5.files import hdf5_files, several
from scd_datasets.sources.hdf5.layouts import ALOHA, first_layout
from scd_datasets.sources.hdf5.recording import Hdf5Recording
from scd_datasets.sources.images import MULTIPLE
from scd_datasets.sources.replay.zarr_files import is_replay_buffer
from scd_datasets.sources.source import DropFeatures, Source
from scd_datasets.sources.strided import Strided

RLDS = ("*.tfrecord*", "*/*.tfrecord*")  # in the folder of a version, or in the one above


def open_source(config: SourceConfig, multiple: int = MULTIPLE) -> Source:
    """Opens the dataset that is named, whichever layout it has, without the features that are to be dropped,
    at a lower rate where `data.stride` says so.

    multiple: what the longer side of a resized image is a multiple of.
    """
    source = open_layout(config, multiple)
    source = DropFeatures(source, config.drop_features) if config.drop_features else source
    return Strided(source, config.stride) if config.stride > 1 else source


def is_other_recording(root: Path) -> bool:
    """Says whether a replay buffer or HDF5 lies there, and not a LeRobotDataset or a window store."""
    return is_replay_buffer(root) or bool(hdf5_files(root))


def open_layout(config: SourceConfig, multiple: int) -> Source:
    """Opens it by the layout that is found on disk; ValueError where `data.fps` contradicts the recording."""
    # Of what they need, PyAV and pyarrow, a machine that reads window stores alone may have nothing.
    from scd_datasets.sources.lerobot.reader import LeRobotFolder, download
    from scd_datasets.sources.replay.buffer import ReplayBuffer

    root = Path(config.root) if config.root else download(str(config.repo_id), config.revision)
    letterbox = config.resize == "letterbox"
    if is_replay_buffer(root):
        images = config.cameras, config.image_size, letterbox, multiple
        return ReplayBuffer(root, config.fps, *images, config.keys, config.decoder)
    if files := hdf5_files(root):
        return open_hdf5(root, files, config, multiple)
    if any(next(root.glob(pattern), None) for pattern in RLDS):
        raise ValueError(
            f"{root} is RLDS, which TensorFlow reads: convert it to a LeRobotDataset, on this machine alone, "
            "as docs/data.md says under 'DROID and other RLDS'"
        )
    in_order = config.clock == "index"
    folder = LeRobotFolder(
        root, config.cameras, config.image_size, letterbox, config.decoder, multiple, config.keys, in_order
    )
    if config.fps not in (None, folder.fps):
        raise ValueError(
            f"{root} was recorded at {folder.fps} fps, data.fps={config.fps}: leave data.fps out"
        )
    return folder


def open_hdf5(root: Path, files: list[Path], config: SourceConfig, multiple: int) -> Source:
    """Opens HDF5 by the groups in it."""
    layout = first_layout(files)
    if len(files) > 1 and layout is not ALOHA:
        raise several(root, files)
    images = config.fps, config.cameras, config.image_size, config.resize == "letterbox", multiple
    if layout is None:
        return Hdf5Recording(files[0], *images, config.keys)
    return Hdf5Episodes(root, files, layout, *images, config.keys)
