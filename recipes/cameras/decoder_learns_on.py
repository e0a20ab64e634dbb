"""Lets the decoder of a finished world's codec learn on, as a training does since section 39 of the log.

    python recipes/cameras/decoder_learns_on.py WORLD DATA.zarr OUT

WORLD: one whose codec is an autoencoder, DATA.zarr the window store that it was trained on, OUT where the new
world goes. All that it imagines stays the same latents; how they are drawn does not. Its filter is then
measured anew by a distillation of one update that changes nothing:

    scd-distill world=OUT data.root=DATA.zarr out=runs/again method=dmd num_steps=2 noise_samples=1 steps=1 \
        optimizer.lr=1e-9 time_budget=3000 report_windows=0
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from tqdm import tqdm

from scd_datasets.preparation.low_dim import calibration_threshold, split_hash, store_low_dim
from scd_datasets.store.loader import WindowLoader
from scd_datasets.store.store import WindowStore
from scd_world.codec.codec import AutoencoderCodec
from scd_world.codec.config import CodecTrainConfig
from scd_world.codec.fit_codec import decoder_steps, fit_decoder, reconstruction
from scd_world.training.latents import MEASURED, find_unchanged, frames_of, single_frames
from scd_world.utils.precision import use_bf16
from scd_world.world.world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("world", "data", "out"):
        parser.add_argument(name)
    args = parser.parse_args()
    world, store, cpu = World.load(args.world), WindowStore.open(args.data), torch.device("cpu")
    if not isinstance(world.codec, AutoencoderCodec):
        parser.error(f"{args.world} has codec={world.codec.config.kind}, which has no decoder")
    if store.fingerprint != world.provenance["fingerprint"]:
        parser.error(f"{args.world} was trained on another recording than {args.data}")
    held_out = np.isin(store.episode_index, world.provenance["held_out_episodes"])
    episodes, unseen = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    hashes = split_hash(
        store_low_dim(store, episodes)
    )  # of those set apart the filter is measured: not these
    share = world.provenance.get("calibration_share", 0.0)
    learnt_from = episodes[hashes >= calibration_threshold(hashes, share)]
    network, settings = world.codec.network.requires_grad_(True), CodecTrainConfig("autoencoder")
    frames = frames_of(store, learnt_from, settings.batch_size, 0, cpu)
    of_unseen = WindowLoader(store, unseen, MEASURED, 1, 0, motion_share=0.0).batch(0)
    true = single_frames(of_unseen["pixels"], cpu)
    before, began = reconstruction(network, true), time.monotonic()
    losses = fit_decoder(network, frames, 0, settings, use_bf16("auto", cpu))
    for _ in tqdm(losses, "decoder", decoder_steps(settings.steps), unit="step"):
        pass
    network.requires_grad_(False)
    find_unchanged(world.codec, store, learnt_from, settings.noise, 0)
    after = reconstruction(network, true)
    print(f"{time.monotonic() - began:.0f} s; held-out frames come back at {after['psnr']:.1f} dB, SSIM "
          f"{after['ssim']:.3f} ({before['psnr']:.1f} and {before['ssim']:.3f} before)")  # fmt: skip
    world.provenance["codec"] = after
    world.save(args.out)


if __name__ == "__main__":
    main()
