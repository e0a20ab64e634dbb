"""ColorVideoVDP: how far people would find an imagined video from the recorded one, from PyPI alone.

Mantiuk et al. 2024 (doi 10.1145/3658144): a model of human vision whose few parameters come with the package.
It gives quality in JOD: 10 is no visible difference, and one less what three of four people would notice.
B videos, T frames, V cameras.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange

from scd_world.metrics.perceptual import Pairs

DISPLAY = "standard_4k"  # the package's own default, pixel by pixel on a screen of 30 inches


def load_cvvdp(device: torch.device) -> Any:
    """Makes the metric. ModuleNotFoundError, with the cure, where the package is not installed."""
    try:
        from pycvvdp import cvvdp
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"cvvdp=true needs a package that is not installed ({error}): "
            "pip install 'lerobot_env_scd_world[perceptual]'"
        ) from error
    return cvvdp(display_name=DISPLAY, device=device, quiet=True)


@torch.no_grad()
def video_quality(metric: Any, pairs: Pairs, fps: float) -> dict[str, Any]:
    """Averages the quality of all videos and cameras: `value` in JOD, at most 10, and what was compared.

    pairs: (true, imagined) videos, uint8 (B, T, V, H, W, 3); at least one video. fps: frames per second.
    """
    found = []
    for pair in pairs:
        true, imagined = (rearrange(video, "b t v h w c -> (b v) 1 c t h w") for video in pair)
        found += [
            float(metric.predict(x, y, dim_order="BCFHW", frames_per_second=fps)[0])
            for x, y in zip(imagined, true, strict=True)
        ]
    videos, frames = sum(len(true) for true, _ in pairs), pairs[0][0].shape[1]
    what = f"quality in JOD, 10: no visible difference; {videos} videos of {frames} imagined frames"
    return {"value": sum(found) / len(found), "what": what}
