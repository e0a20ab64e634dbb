"""The learners of Stable-Baselines3 that improve.py knows, PPO and SAC: what differs between the two.

PPO (Schulman et al. 2017) learns from what it has just played, and throws it away; SAC (Haarnoja et al. 2018)
keeps a memory, and learns from all of it. SAC answers tanh(x) · FURTHEST.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

from actor import ANSWERS, SEEN, FourierFeatures
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn
from view import FURTHEST

DISCOUNT = 0.99


@dataclass(frozen=True)
class Settings:
    """Says how an arm learns. A changed one does not fit a checkpoint, and is refused."""

    algorithm: str = "ppo"  # or "sac"
    steps: int = 1_000_000  # imagined, of all rows together
    rows: int = 128
    rollout: int = 32  # steps of each row in an update
    batch_size: int = 512
    epochs: int = 3  # PPO's, over what an update played
    gradient_steps: int = 8  # SAC's, after each step of all rows
    memory: int = 300_000  # steps that SAC keeps
    lr: float = 3e-4
    target_kl: float = 0.02  # one of PPO's updates that goes further ends early
    log_std: float = -1.8  # of an answer, where learning begins; SAC keeps that much entropy
    warm_up: int = 5  # updates in which the value alone learns: an untrained one would ruin what was cloned
    max_uncertainty: float | None = None  # an episode ends where the world is less sure
    evaluate_every: int = 60  # updates
    checkpoint_every: int = 10  # updates
    episodes: int = 60  # of an evaluation
    seed: int = 0

    @property
    def update(self) -> int:
        return self.rows * self.rollout


CLASSES: dict[str, type[PPO] | type[SAC]] = {"ppo": PPO, "sac": SAC}
LAYERS = {
    "ppo": {"pi": [256, 256], "vf": [128, 128]},
    "sac": {"pi": [256, 256], "qf": [256, 256]},
}


def make_policy(algorithm: str) -> BasePolicy:
    """Makes the untrained networks of a learner, without an environment."""
    kind = ActorCriticPolicy if algorithm == "ppo" else SACPolicy
    return kind(SEEN, ANSWERS, lambda _: 0.0, **network(algorithm))


def network(algorithm: str) -> dict[str, Any]:
    """Gives what Stable-Baselines3 builds a learner's networks of."""
    return {
        "net_arch": LAYERS[algorithm],
        "activation_fn": nn.ReLU,
        "features_extractor_class": FourierFeatures,
    }


def make_learner(envs: VecEnv, settings: Settings) -> PPO | SAC:
    """Makes an untrained learner."""
    common: dict[str, Any] = {
        "policy": "MlpPolicy",
        "env": envs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.lr,
        "gamma": DISCOUNT,
        "seed": settings.seed,
        "device": "cpu",
    }
    net = network(settings.algorithm)
    if settings.algorithm == "ppo":
        return quiet(
            PPO(
                **common,
                n_steps=settings.rollout,
                n_epochs=settings.epochs,
                target_kl=settings.target_kl,
                policy_kwargs=net | {"log_std_init": settings.log_std},
            )
        )
    log_std = settings.log_std - math.log(FURTHEST)  # before the answer is stretched
    model = SAC(
        **common,
        buffer_size=settings.memory,
        learning_starts=0,  # what was cloned plays from the first step on
        gradient_steps=settings.gradient_steps,
        ent_coef="auto_0.01",
        target_entropy=len(ANSWERS.low) * (log_std + 0.5 * math.log(2 * math.pi * math.e)),
        policy_kwargs=net,
    )
    noise: Any = model.actor.log_std
    nn.init.zeros_(noise.weight)
    nn.init.constant_(noise.bias, log_std)
    return quiet(model)


def quiet(model: PPO | SAC) -> PPO | SAC:
    """Keeps a learner from making a folder for its log with every update."""
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def actor_parts(policy: BasePolicy) -> list[nn.Module]:
    """Gives the networks that answer, in the order in which they are applied to features."""
    if isinstance(policy, SACPolicy):
        return [policy.actor.latent_pi, policy.actor.mu]
    assert isinstance(policy, ActorCriticPolicy)
    return [policy.mlp_extractor.policy_net, policy.action_net]


def features_of(policy: BasePolicy) -> list[FourierFeatures]:
    """Gives what scales what is seen, of the actor first."""
    found = [part for part in policy.modules() if isinstance(part, FourierFeatures)]
    if isinstance(policy, SACPolicy):
        found.sort(key=lambda part: part is not policy.actor.features_extractor)
    return found


def mean_answer(policy: BasePolicy, seen: Tensor) -> Tensor:
    """Gives the likeliest answers (B, 2) to what is seen (B, SIZE), differentiable."""
    answer = features_of(policy)[0](seen)
    for part in actor_parts(policy):
        answer = part(answer)
    return answer.tanh() * FURTHEST if isinstance(policy, SACPolicy) else answer


def actor_learns(model: PPO | SAC, learns: bool) -> None:
    """Holds the actor, its noise included, or lets it learn."""
    for part in actor_parts(model.policy):
        part.requires_grad_(learns)
    noise: Any = model.actor.log_std if isinstance(model, SAC) else model.policy.log_std
    noise.requires_grad_(learns)


def to_bytes(model: PPO | SAC) -> dict[str, bytes]:
    """Gives all that a learner knows, its memory included."""
    learner, memory = io.BytesIO(), io.BytesIO()
    model.save(learner)
    if isinstance(model, SAC):
        model.save_replay_buffer(memory)
    return {"learner": learner.getvalue(), "memory": memory.getvalue()}


def from_bytes(saved: dict[str, Any], settings: Settings, envs: VecEnv | None = None) -> PPO | SAC:
    """Makes a learner of what `to_bytes` gave; without `envs`, its policy alone is of use."""
    kind = CLASSES[settings.algorithm]
    model = kind.load(io.BytesIO(saved["learner"]), env=envs, device="cpu", force_reset=False)
    if isinstance(model, SAC) and envs is not None:
        model.load_replay_buffer(io.BytesIO(saved["memory"]))
    return quiet(model)
