"""From a source's settings to the reader of its layout: LeRobotDataset, replay buffer or HDF5."""

from __future__ import annotations

from pathlib import Path

from scd_datasets.config import SourceConfig
from scd_datasets.sources.hdf5_recording import Hdf5Recording, hdf5_file
from scd_datasets.sources.lerobot_features import MULTIPLE
from scd_datasets.sources.lerobot_reader import LeRobotFolder, download
from scd_datasets.sources.replay_buffer import ReplayBuffer, is_replay_buffer
from scd_datasets.sources.source import DropFeatures, Source


def open_source(config: SourceConfig, multiple: int = MULTIPLE) -> Source:
    """The dataset that is named, whichever of the layouts it has, without what is to be ignored; a resized
    longer side is a `multiple`."""
    source = open_layout(config, multiple)
    return DropFeatures(source, config.drop_features) if config.drop_features else source


def open_layout(config: SourceConfig, multiple: int) -> Source:
    root = Path(config.root) if config.root else download(str(config.repo_id), config.revision)
    letterbox = config.resize == "letterbox"
    if is_replay_buffer(root):
        return ReplayBuffer(root, config.fps, config.cameras, config.image_size, letterbox, multiple)
    if file := hdf5_file(root):
        return Hdf5Recording(file, config.fps, config.cameras, config.image_size, letterbox, multiple)
    folder = LeRobotFolder(root, config.cameras, config.image_size, letterbox, config.decoder, multiple)
    if config.fps not in (None, folder.fps):
        raise ValueError(
            f"{root} was recorded at {folder.fps} fps, data.fps={config.fps}: leave data.fps out"
        )
    return folder
