"""What settings ask of the data and of each other: all complaints at once, before anything is decoded,
pretrained or allocated.

E episodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from scd_datasets.config import DataConfig
from scd_datasets.preparation.low_dim import names_in, names_of, open_beside
from scd_datasets.preparation.open_store import check_recording_of, in_its_size
from scd_datasets.sources.open_source import is_other_recording, open_source
from scd_datasets.sources.source import Source
from scd_datasets.store.store import WindowStore
from scd_world.robot_data.compatibility import check_schema
from scd_world.robot_data.stride import LAST, Stride
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import check_fsdp
from scd_world.training.learner import check_division
from scd_world.utils.checks import all_at_once, check_patch, complain
from scd_world.world.world import find_folder
from scd_world.world.world_config import read_config

REPEATED = 100  # times that a batch may hold each window: more is a slip
ENLARGED = 4  # times that images may be enlarged: nothing new is seen in larger ones


def check_before_decoding(config: TrainConfig, num_processes: int, worlds: Iterable[str] = ()) -> None:
    """Raises ValueError with all that cannot work in a training that has not begun yet.

    A recording lists the lengths of its episodes, so nothing of it need be decoded. Of a window store, they
    are checked when it is open. worlds: further ones, folders or names on the Hub, that must be there and
    have the recording's actions and rate, as the one has that the training starts from.
    """
    schemas = []
    with all_at_once():
        check_division(config, num_processes)
        check_fsdp(config.fsdp, num_processes)
        if config.random_shift:
            check_random_shift(config)
        for world in [*([] if config.init is None else [config.init]), *worlds]:
            try:
                schemas.append(read_config(find_folder(world)).schema)
            except (OSError, ValueError) as error:
                complain(str(error))
        if is_recording(config.data):
            source = open_source(config.data, config.patch_pixels)
            if schemas:
                source = in_its_size(schemas[0], source, config.data)
            check_recording(config, source)
            for schema in schemas:
                check_recording_of(schema, source, config.data.stride)
            check_extra_datasets(config, names_of(source), Stride(config.data.stride, LAST))
        elif schemas or config.prior.extra_datasets:
            try:
                store = WindowStore.open(config.data.root or "", in_memory=False)
            except (OSError, ValueError):  # as will be said where it is opened to be read
                return
            for schema in schemas:
                try:
                    check_schema(schema, store.schema, store.path)
                except ValueError as error:
                    complain(str(error))
            check_extra_datasets(config, names_in(store.schema), store.stride)


def check_extra_datasets(config: TrainConfig, wanted: Mapping[str, object], stride: Stride | None) -> None:
    """Complains of datasets that the prior is to learn from, too, and that are of another robot."""
    for root in config.prior.extra_datasets:
        try:
            open_beside(root, wanted, config.data.low_dim_keys, config.data.clock == "index", stride)
        except (OSError, ValueError) as error:
            complain(str(error))


def check_random_shift(config: TrainConfig) -> None:
    """Complains of what would stay where it is while frames are moved."""
    moved, model = f"random_shift={config.random_shift} moves frames", config.model
    if model.foreground_weight:
        complain(
            f"{moved} before a background that stays, by which model.foreground_weight="
            f"{model.foreground_weight:g} weighs: set one of them to 0"
        )
    if config.prior.draws and model.head == "conv" and not model.state_filter:
        complain(
            f"{moved}, not what the prior draws of a state into them: set random_shift=0, "
            "prior.renderer_parts=0, or model.state_filter=true"
        )


def is_recording(data: DataConfig) -> bool:
    """Says whether there are images to decode: not in a window store."""
    return data.kind != "zarr" or is_other_recording(Path(data.root or ""))


def check_recording(config: TrainConfig, source: Source) -> None:
    """Complains of what the images and episodes that a recording lists do not give."""
    check_patch(config.model.patch, source.grid.height, source.grid.width, config.codec.shrink)
    size = config.data.image_size
    smallest = min((min(size) for size in source.sizes.values()), default=0)
    if size is not None and smallest and size > ENLARGED * smallest:
        complain(
            f"data.image_size={size}: the images were recorded with {smallest} pixels along their shorter "
            f"side, and to enlarge them more than {ENLARGED} times shows nothing new"
        )
    lengths = np.array([episode.length for episode in source.episodes])
    held_out = max(1, round(config.data.holdout * len(lengths))) if config.data.holdout else 0
    if len(lengths) and held_out >= len(lengths):
        complain(
            f"data.holdout={config.data.holdout}: of {len(lengths)} episode(s) none would be left to learn "
            "from; record more, or set data.holdout=0"
        )
    check_lengths(config, lengths, lengths if held_out else lengths[:0])


def check_episodes(config: TrainConfig, training: np.ndarray, held_out: np.ndarray) -> None:
    """Raises ValueError where windows do not fit the episodes of these lengths, (E,) each."""
    with all_at_once():
        check_lengths(config, training, held_out)


def check_lengths(config: TrainConfig, training: np.ndarray, held_out: np.ndarray) -> None:
    """Complains of windows that no episode is long enough for, and of batches of more windows than exist."""
    longest, steps = training.max(initial=0), config.sequence_length
    if steps > longest:
        complain(
            f"sequence_length={steps}: the longest training episode has {longest} steps; lower it, or record "
            "longer episodes"
        )
    elif config.batch_size > REPEATED * (windows := int((training - steps + 1).clip(min=0).sum())):
        complain(
            f"batch_size={config.batch_size}: there are {windows} windows of {steps} steps, and a batch "
            f"would hold each more than {REPEATED} times; lower it"
        )
    if len(held_out) and config.eval_context >= held_out.max():
        complain(
            f"eval_context={config.eval_context}: the longest held-out episode has {held_out.max()} steps, "
            "and one at least is imagined; lower it"
        )
