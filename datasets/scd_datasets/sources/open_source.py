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
    """Opens the dataset that is named, whichever layout it has, without the features that are to be dropped.

    multiple: what the longer side of a resized image is a multiple of.
    """
    source = open_layout(config, multiple)
    return DropFeatures(source, config.drop_features) if config.drop_features else source


def open_layout(config: SourceConfig, multiple: int) -> Source:
    """Opens it by the layout that is found on disk; ValueError where `data.fps` contradicts the recording."""
    root = Path(config.root) if config.root else download(str(config.repo_id), config.revision)
    letterbox = config.resize == "letterbox"
    if is_replay_buffer(root):
        return ReplayBuffer(root, config.fps, config.cameras, config.image_size, letterbox, multiple)
    if file := hdf5_file(root):
        return Hdf5Recording(file, config.fps, config.cameras, config.image_size, letterbox, multiple)
    in_order = config.clock == "index"
    folder = LeRobotFolder(
        root, config.cameras, config.image_size, letterbox, config.decoder, multiple, config.keys, in_order
    )
    if config.fps not in (None, folder.fps):
        raise ValueError(
            f"{root} was recorded at {folder.fps} fps, data.fps={config.fps}: leave data.fps out"
        )
    return folder
