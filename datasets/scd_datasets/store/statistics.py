"""Ranges, changes and the background of the training episodes: what the model's units are made of.

F frames, R rows, S state size, A action size, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from scd_datasets.store.store import WindowStore, rows_of
from scd_world.robot_data.joint_law import find_commands
from scd_world.robot_data.linear_fit import fit_hold_action
from scd_world.robot_data.normalizer import Normalizer, encode_pixels, half_range

BACKGROUND_FRAMES = 256


def compute_stats(store: WindowStore, episodes: np.ndarray) -> Normalizer:
    """Measures these `episodes` (E,) alone: what is held out leaves no trace in the model's units.

    Raises ValueError where there is none.
    """
    episodes = np.asarray(episodes)
    if not len(episodes):
        raise ValueError("statistics need at least one training episode, got none")
    rows = rows_of(store.starts, store.lengths, episodes)
    state, action, reward = (torch.from_numpy(a[rows]) for a in (store.state, store.action, store.reward))
    low, high = state.amin(0), state.amax(0)
    moved = rows[~last_frames(store)[rows] & ~store.dropped[rows]]
    change = torch.from_numpy(store.state[moved + 1] - store.state[moved]) / half_range(low, high)
    normalizer = Normalizer(
        state_low=low,
        state_high=high,
        state_delta_rms=change.square().mean(0).sqrt() if len(moved) else torch.zeros_like(low),
        hold_action=torch.zeros(action.shape[1], state.shape[1] + 1),
        action_low=action.amin(0),
        action_high=action.amax(0),
        reward_mean=reward.mean() if store.schema.reward else torch.zeros(()),
        reward_std=reward.std(correction=0) if store.schema.reward else torch.ones(()),
        background=background(store, episodes),
    )
    recorded = transitions(store, episodes, normalizer)
    # Where it is told what a joint may touch, one network sees it all.
    own = 0 if store.schema.environment_state else len(store.schema.agent_pos)
    return replace(
        normalizer,
        hold_action=fit_hold_action(*recorded, normalizer.state_delta_rms),
        commanded_by=find_commands(*recorded, normalizer.state_delta_rms, own),
    )


def transitions(
    store: WindowStore, episodes: np.ndarray, normalizer: Normalizer
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gives all recorded steps that have a previous and a next frame, with none dropped between: previous
    state and action (R, S + A), state (R, S), action (R, A), next state (R, S), in model units."""
    rows = rows_of(store.starts, store.lengths, np.asarray(episodes))
    rows = rows[~last_frames(store)[rows]]
    rows = rows[~np.isin(rows, store.starts)]
    rows = rows[~store.dropped[rows] & ~store.dropped[rows - 1]]
    previous, state, following = (
        normalizer.encode_state(torch.from_numpy(store.state[rows + i])) for i in (-1, 0, 1)
    )
    previous_action, action = (
        normalizer.encode_action(torch.from_numpy(store.action[rows + i])) for i in (-1, 0)
    )
    return torch.cat([previous, previous_action], dim=-1), state, action, following


def last_frames(store: WindowStore) -> np.ndarray:
    """Gives (F,) bool: which rows end an episode."""
    last = np.zeros(len(store.action), bool)
    last[store.starts + store.lengths - 1] = True
    return last


def background(store: WindowStore, episodes: np.ndarray) -> torch.Tensor:
    """Gives (C, H, W) in [-1, 1]: each pixel's median over frames spread evenly over the episodes."""
    ends = np.cumsum(store.lengths[episodes])
    picks = np.unique(np.linspace(0, ends[-1] - 1, BACKGROUND_FRAMES).astype(int))
    which = np.searchsorted(ends, picks, side="right")
    frames = picks - (ends - store.lengths[episodes])[which]
    pixels = store.windows(episodes[which], frames, 1)["pixels"][:, 0]
    half = len(pixels) // 2
    return encode_pixels(torch.from_numpy(np.partition(pixels, half, axis=0)[half]))
