"""Ranges, spreads and the background of the training episodes: what the model's units are made of.

F frames, S state size, A action size.
"""

from __future__ import annotations

import numpy as np
import torch

from scd_datasets.store.store import WindowStore, rows_of
from scd_world.prior.constraints import fit_laws
from scd_world.prior.linear_dynamics import fit_linear
from scd_world.robot_data.linear_fit import fit_hold
from scd_world.robot_data.normalizer import Stats, encode_pixels, to_unit

BACKGROUND_FRAMES = 256


def compute_stats(store: WindowStore, episodes: np.ndarray) -> Stats:
    """Statistics of these `episodes` alone: what is held out leaves no trace in the model's units."""
    episodes = np.asarray(episodes)
    if not len(episodes):
        raise ValueError("statistics need at least one training episode, got none")
    rows = rows_of(store.starts, store.lengths, episodes)
    last = np.zeros(len(store.action), bool)
    last[store.starts + store.lengths - 1] = True
    state, action, reward = (torch.from_numpy(a[rows]) for a in (store.state, store.action, store.reward))
    low, high = state.amin(0), state.amax(0)
    moved = rows[~last[rows]]
    half = (high - low) / 2
    change = to_unit(torch.from_numpy(store.state[moved + 1] - store.state[moved]), -half, half)
    state_change = change.square().mean(0).sqrt() if len(moved) else torch.zeros_like(low)
    action_low, action_high = action.amin(0), action.amax(0)
    # Transitions whose frame before is known too, so that there is a velocity.
    known = moved[~np.isin(moved, store.starts)]
    was, now, then = (to_unit(torch.from_numpy(store.state[known + i]), low, high) for i in (-1, 0, 1))
    did, act = (to_unit(torch.from_numpy(store.action[known + i]), action_low, action_high) for i in (-1, 0))
    transitions = torch.cat([was, did], dim=-1), now, act, then, state_change
    linear, linear_rest = fit_linear(*transitions)
    return Stats(
        state_low=low,
        state_high=high,
        state_change=state_change,
        linear=linear,
        linear_rest=linear_rest,
        hold=fit_hold(*transitions),
        **fit_laws(to_unit(state, low, high)),
        action_low=action_low,
        action_high=action_high,
        reward_mean=reward.mean() if store.schema.reward else torch.zeros(()),
        reward_std=reward.std(correction=0) if store.schema.reward else torch.ones(()),
        background=background(store, episodes),
    )


def background(store: WindowStore, episodes: np.ndarray) -> torch.Tensor:
    """(C, H, W) in [-1, 1]: each pixel's median over frames spread evenly over the episodes."""
    ends = np.cumsum(store.lengths[episodes])
    picks = np.unique(np.linspace(0, ends[-1] - 1, BACKGROUND_FRAMES).astype(int))
    which = np.searchsorted(ends, picks, side="right")
    frames = picks - (ends - store.lengths[episodes])[which]
    pixels = store.windows(episodes[which], frames, 1)["pixels"][:, 0]
    middle = len(pixels) // 2
    return encode_pixels(torch.from_numpy(np.partition(pixels, middle, axis=0)[middle]))
