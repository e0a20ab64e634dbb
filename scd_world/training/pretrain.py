"""What is learnt before the first window: the state prior's stages, one after another."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from scd_datasets.preparation.low_dim import Numbers
from scd_datasets.store.store import WindowStore
from scd_world.prior.trajectories import Recorded
from scd_world.robot_data.normalizer import Stats
from scd_world.training.config import TrainConfig


def circumstances(config: TrainConfig, store: WindowStore) -> dict[str, Any]:
    """What the lessons before the first window depend on; how long they may take aside."""
    of = ("model", "body", "sketch", "data", "steps", "seed", "precision", "init")
    depends = {name: value for name, value in asdict(config).items() if name in of}
    for name in ("body", "sketch"):
        depends[name] = {key: value for key, value in depends[name].items() if not key.endswith("share")}
    return depends | {"store": store.fingerprint}


def recorded_states(numbers: Numbers, stats: Stats) -> Recorded:
    """The same in model units."""
    return Recorded(
        state=stats.encode_state(torch.from_numpy(numbers.state)),
        before=stats.encode_before(torch.from_numpy(numbers.before)),
        act=stats.encode_action(torch.from_numpy(numbers.action)),
        rew=stats.encode_reward(torch.from_numpy(numbers.reward)),
        success=torch.from_numpy(numbers.success).float(),
        starts=torch.from_numpy(numbers.starts),
        lengths=torch.from_numpy(numbers.lengths),
    )
