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
    """Makes the metric; ValueError, with the cure, where the package is not installed."""
    try:
        from pycvvdp import cvvdp
    except ImportError as error:
        raise ValueError(
            f"cvvdp=true needs an extra: pip install 'lerobot_env_scd_world[perceptual]' ({error})"
        ) from error
    return cvvdp(display_name=DISPLAY, device=device, quiet=True)


def report_quality(metric: Any, pairs: Pairs, copies: Pairs, fps: float) -> dict[str, Any]:
    """Gives the imagined videos' mean quality, that of a copied last frame, and what was compared.

    pairs: (true, imagined), copies: (true, copied) videos, as `video_quality` has them.
    """
    copied = video_quality(metric, copies, fps)
    videos, frames = sum(len(true) for true, _ in pairs), pairs[0][0].shape[1]
    what = (
        f"ColorVideoVDP's quality in JOD, 10: no visible difference; a copied last frame: {copied:.3f}; "
        f"{videos} videos of {frames} imagined frames"
    )
    return {"value": video_quality(metric, pairs, fps), "value_copy": copied, "what": what}


@torch.no_grad()
def video_quality(metric: Any, pairs: Pairs, fps: float) -> float:
    """Averages the quality of all videos and cameras, in JOD, at most 10.

    pairs: (true, other) videos, uint8 (B, T, V, H, W, 3); at least one video. fps: frames per second.
    """
    found = []
    for pair in pairs:
        true, other = (rearrange(video, "b t v h w c -> (b v) 1 c t h w") for video in pair)
        found += [
            float(metric.predict(x, y, dim_order="BCFHW", frames_per_second=fps)[0])
            for x, y in zip(other, true, strict=True)
        ]
    return sum(found) / len(found)
