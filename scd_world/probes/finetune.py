"""A short fine-tuning of a changed dense world: the model's own loss, on the training's windows.

Update number i is a pure function of (seed, i), so all models are fine-tuned on the same windows and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scd_datasets.store.loader import WindowLoader
from scd_datasets.store.store import WindowStore
from scd_world.model.noise import Noise
from scd_world.model.world_model import WorldModel
from scd_world.optim.config import OptimizerConfig
from scd_world.optim.schedule import learning_rate
from scd_world.probes.config import ProbeConfig
from scd_world.robot_data.clip import Clip
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import make_accelerator
from scd_world.training.latents import latent_store
from scd_world.training.learner import Learner
from scd_world.world.world import World


class PairedWithNoise(nn.Module):
    """The model's loss with every noisy frame after its own pure noise (t = 1), for `SharedResidual`."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def sample_noise(self, clip: Clip, generator: torch.Generator) -> Noise:
        noise = self.model.sample_noise(clip, generator)
        t, x = noise.t[:1], noise.x[:1]
        return replace(noise, t=torch.cat([torch.full_like(t, torch.inf), t]), x=torch.cat([x, x]))

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.loss(clip, noise)


class Finetuner:
    """Trains models in place for a few updates; they end as the average of their last weights."""

    def __init__(self, world: World, store: WindowStore, held_out: np.ndarray, config: ProbeConfig) -> None:
        """held_out: the episodes (positions in the store) that must not be learned from. ValueError: no
        others are left."""
        self.world, self.config = world, config
        episodes = np.setdiff1d(np.arange(len(store.lengths)), held_out)
        if not len(episodes):
            raise ValueError(
                f"all {len(held_out)} episodes are measured on, and none is left to fine-tune with: name the "
                "measured ones (episodes=[…]), or finetune_updates=0"
            )
        seen = latent_store(store, world.codec, Path(config.out) / "latents.zarr", world.device, episodes)
        self.loader = WindowLoader(
            seen,
            episodes,
            config.finetune_batch_size,
            config.finetune_length,
            config.seed,
            anchors=world.config.anchor_frame,
        )
        self.settings = TrainConfig(
            out=config.out,
            data=config.data,
            model=world.config,
            optimizer=OptimizerConfig(
                lr=config.finetune_lr,
                decoder_lr_ratio=1.0,
                warmup_share=0.05,
                decay_share=0.5,
                ema_decay=0.98,
            ),
            steps=max(config.finetune_updates, 1),
            batch_size=config.finetune_batch_size,
            sequence_length=config.finetune_length,
            seed=config.seed,
            device=self.world.device.type,
        )

    def finetune(
        self, model: WorldModel, objective: nn.Module | None = None, tick: Callable[[], object] = lambda: None
    ) -> WorldModel:
        """Fine-tunes the model, gives it back. objective: another loss around it; tick: after each update."""
        settings = self.settings
        model.requires_grad_(True)
        learner = Learner(model, self.world.stats, settings, make_accelerator(settings), objective)
        for step in range(self.config.finetune_updates):
            rate = learning_rate(settings.optimizer, (step + 1) / settings.steps)
            learner.update(self.loader.batch(step), step, rate)
            tick()
        average = learner.ema.weights()
        for name, parameter in model.named_parameters():
            parameter.data.copy_(average[name])
        return model.eval().requires_grad_(False)
