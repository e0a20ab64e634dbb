"""The beginning: a policy cloned from recordings. N recorded steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from learners import actor_parts, features_of, make_policy, mean_answer
from stable_baselines3.common.policies import BasePolicy


def clone(
    algorithm: str, seen: np.ndarray, answer: np.ndarray, steps: int, batch_size: int = 256, seed: int = 0
) -> tuple[BasePolicy, float]:
    """Fits a learner's likeliest answers to recorded ones (N, 2) by what was seen (N, F); gives its networks,
    and the last loss.

    The mean absolute error is least at the median, which holds to one of two ways round a block where their
    mean would run into it.
    """
    torch.manual_seed(seed)
    policy, generator = make_policy(algorithm), torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(seen), torch.from_numpy(answer)
    for scale in features_of(policy):
        scale.mean.copy_(x.mean(0))
        scale.std.copy_(x.std(0).clamp_min(1e-3))
    optimizer = torch.optim.Adam([p for net in actor_parts(policy) for p in net.parameters()], 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    smooth = float("nan")
    for _ in range(steps):
        rows = torch.randint(len(x), (batch_size,), generator=generator)
        loss = (mean_answer(policy, x[rows]) - y[rows]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        smooth = loss.item() if np.isnan(smooth) else 0.99 * smooth + 0.01 * loss.item()
    return policy, smooth


def save_clone(file: Path, policy: BasePolicy) -> None:
    """Writes what was cloned: how what is seen is scaled, and the networks that answer."""
    cloned = {id(tensor) for part in actor_parts(policy) for tensor in part.parameters()}
    cloned |= {id(tensor) for scale in features_of(policy) for tensor in scale.buffers()}
    tensors = {**dict(policy.named_parameters()), **dict(policy.named_buffers(remove_duplicate=False))}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.data for name, tensor in tensors.items() if id(tensor) in cloned}, file)


def load_clone(file: Path, policy: BasePolicy) -> None:
    """Puts a clone into a learner's networks; what values a state is not cloned."""
    policy.load_state_dict(torch.load(file), strict=False)
