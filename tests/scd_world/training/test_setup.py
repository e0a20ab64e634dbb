"""What a training starts with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scd_datasets.preparation.low_dim import split_hash, store_low_dim
from scd_datasets.store.statistics import compute_stats
from scd_datasets.store.store import WindowStore
from scd_world.training import pretrain
from scd_world.training.distributed import make_accelerator
from scd_world.training.pretrain import Pretraining
from scd_world.training.setup import FILTER_WINDOWS, filter_clip
from scd_world.training.validation import action_sensitivity


def test_episodes_that_end_with_what_is_shown_measure_no_filter(training):
    config = training()
    store = WindowStore.open(config.data.root)
    pretraining = Pretraining(config, store, Path(config.out), make_accelerator(config))
    assert filter_clip(pretraining, compute_stats(store, pretraining.episodes)) is not None
    del pretraining.filter_episodes
    store.lengths[:] = config.eval_context
    assert filter_clip(pretraining, None) is None


def test_a_filter_is_measured_on_windows_that_are_evenly_spread(training, monkeypatch):
    """Two dozen at random may miss all in which something is held; fewer of them are spread as evenly."""
    config = training()
    store = WindowStore.open(config.data.root)
    pretraining = Pretraining(config, store, Path(config.out), make_accelerator(config))
    pretraining.filter_episodes = np.arange(len(store.lengths))
    taken: list[tuple[np.ndarray, int]] = []
    read = store.windows

    def windows(episodes: np.ndarray, frames: np.ndarray, num_steps: int) -> dict[str, np.ndarray]:
        taken.append((np.stack([episodes, frames], axis=1), num_steps))
        return read(episodes, frames, num_steps)

    normalizer = compute_stats(store, pretraining.episodes)
    monkeypatch.setattr(store, "windows", windows)
    clip = filter_clip(pretraining, normalizer)
    places, num_steps = taken[0]
    assert clip is not None
    assert len(clip.obs) == len(places) == len(np.unique(places, axis=0)) <= FILTER_WINDOWS
    free = (store.lengths - num_steps + 1).clip(0)  # first frames of each episode
    for episode, count in enumerate(free):
        assert abs((places[:, 0] == episode).sum() - len(places) * count / free.sum()) <= 1
        frames = np.sort(places[places[:, 0] == episode, 1])
        assert len(frames) <= 2 or np.ptp(np.diff(frames)) <= 1
    assert not (np.diff(places[:, 0]) >= 0).all()
    filter_clip(pretraining, normalizer)
    assert (places == taken[1][0]).all()


def test_episodes_without_images_are_set_apart_too_whether_or_not_a_call_resumes(training, monkeypatch):
    """A resumed call measured its uncertainty on those with images alone."""
    config = training()
    store = WindowStore.open(config.data.root)
    pretraining = Pretraining(config, store, Path(config.out), make_accelerator(config))
    count = len(pretraining.calibration.lengths)
    more = store_low_dim(store, np.arange(len(store.lengths)))
    monkeypatch.setattr(pretrain, "dataset_low_dim", lambda *_, **__: more)
    config = replace(config, prior=replace(config.prior, extra_datasets=["more"]))
    pretraining = Pretraining(config, store, Path(config.out), make_accelerator(config))
    pretraining.threshold = split_hash(more).max()  # all but one are set apart
    assert len(pretraining.calibration.lengths) == count + len(more.lengths) - 1
    assert len(pretraining.low_dim_data().lengths) == len(pretraining.episodes) + 1


def test_of_one_window_there_are_no_other_actions(model, clip):
    generator = torch.Generator().manual_seed(0)
    one = clip.rows(slice(0, 1))
    assert action_sensitivity(model, one, generator).keys() == {"eval/loss"}
    assert action_sensitivity(model, clip, generator).keys() == {"eval/loss", "eval/action_sensitivity"}
