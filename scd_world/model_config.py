"""What a model is made of. Without torch, so that a command's --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of and how it is trained. The paper's letters are named where they differ."""

    width: int = 192
    heads: int = 3  # of 64: attention on a CPU costs by the head
    encoder_layers: int = 6
    decoder_layers: int = 2
    patch: int = 12  # pixels; must divide the frame's height and width
    window: int = 8  # frames that the encoder sees
    octaves: int = 5  # Fourier features of state and action

    predict: str = "x"  # what the decoder's output means: the clean frame or the velocity
    add_context: bool = True  # beside the concatenation, add the context to the noisy tokens
    copy_last: bool = True  # with predict=x: a gate per pixel between the last frame and what is drawn
    draws: int = 2  # K, noise draws per encoder pass
    t_mean: float = 0.8  # t = sigmoid(N(t_mean, t_std)): most of training near the noise
    t_std: float = 1.2
    ctx_noise: float = 0.05  # η, perturbation of the context in training
    frame_noise: float = 0.0  # largest deviation of Gaussian noise on the input frames, in training
    frame_ghost: float = 0.3  # largest share of the frame before in an input frame: what a bad copy leaves
    own_history: float = 0.0  # share of the training clips whose past frames the model imagined itself
    state_noise: float = 0.03  # Gaussian noise on the encoder's input state, in units of its usual change
    change_weight: float = 5.0  # extra weight of a pixel that differs from the frame before
    foreground_weight: float = 2.0  # extra weight of a pixel that differs from the background
    state_weight: float = 0.1
    reward_weight: float = 0.01
    success_weight: float = 0.01

    num_steps: int = 4  # denoising steps when stepping (paper: T)
    guidance: float = 1.0  # g, against the perturbed context; 1 = none

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width={self.width} must be an even multiple of heads={self.heads} (rotary needs pairs)"
            )
        if self.predict not in ("x", "v"):
            raise ValueError(f"predict={self.predict!r}: expected 'x' (clean frame) or 'v' (velocity)")
        if self.copy_last and self.predict == "v":
            raise ValueError("copy_last keeps pixels of a frame, and a velocity is none: set copy_last=false")


def check_patch(patch: int, height: int, width: int) -> None:
    """ValueError, with what would do, unless the patch divides the frame."""
    if height % patch or width % patch:
        fit = [size for size in range(4, min(height, width) + 1) if height % size == width % size == 0]
        raise ValueError(
            f"patch={patch} does not divide the frame {height}×{width}. Patches that do: "
            f"{', '.join(map(str, fit)) or 'none'}; or resize a LeRobotDataset's frames while they are read: "
            "with data.image_size=96, 16 always does (scd-train … data.image_size=96 model.patch=16)"
        )
