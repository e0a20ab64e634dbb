"""What a model is made of. Without torch, so that a command's --help answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scd_world.utils.checks import between, complain
from scd_world.utils.field_types import check_types

ARCHITECTURES = ("scd", "causal_dit", "far", "far_long", "diffusion_forcing", "regression", "copy_last")
FUSIONS = ("concat", "one_way", "channel", "none")
ACTION_IN = ("both", "encoder", "decoder")


# Beyond these a value is a slip, or a file that nobody should build: checked before anything is allocated.
BOUNDS = {
    "width": (2, 16384),
    "heads": (1, 256),
    "encoder_layers": (0, 256),
    "decoder_layers": (0, 256),
    "patch": (1, 1024),
    "window": (1, 4096),
    "near_window": (1, 4096),
    "fourier_octaves": (0, 32),
    "conv_channels": (1, 4096),
    "noise_samples": (1, 256),
    "num_steps": (1, 1000),
}
# Of real numbers, which allocate nothing: beyond these a step, or an update, can only come to grief.
REAL_BOUNDS = {
    "t_mean": (-100, 100),
    "t_std": (0, 100),
    "t_shift": (1e-6, 1e6),
    "ctx_noise": (0, 100),
    "frame_noise": (0, 100),
    "frame_blend": (0, 1),
    "self_rollout_share": (0, 1),
    "measured_share": (0, 1),
    "state_noise": (0, 100),
    **dict.fromkeys(("change_weight", "foreground_weight", "anchor_attention_weight"), (0, 1e6)),
    **dict.fromkeys(("state_weight", "reward_weight", "success_weight"), (0, 1e6)),
    "guidance": (0, 100),
}


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of and how it is trained. The paper's letters are named where they differ."""

    architecture: str = "scd"  # or a baseline in its place: docs/baselines.md
    width: int = 192  # of the transformer's layers
    heads: int = 3  # of 64: attention on a CPU costs by the head
    encoder_layers: int = 6  # a dense baseline has encoder and decoder layers together
    decoder_layers: int = 2  # run once per denoising step
    patch: int = 12  # pixels, or cells of a latent; must divide the frame's height and width
    window: int = 8  # frames that the encoder sees
    near_window: int = 4  # architecture=far_long: of them at full resolution, the older ones compressed
    fourier_octaves: int = 5  # Fourier features of state and action

    predict: str = "x"  # what the decoder's output means: the clean frame or the velocity
    fusion: str = "one_way"  # how the decoder sees the context: concat, one_way, channel, none (`decoder.py`)
    add_context: bool = True  # beside that, add the context to the noisy tokens
    action_in: str = "both"  # which network is given the action; the other one is given the states alone
    sees_commands: bool = True  # what draws is given the commands that joints follow; false: where they lead
    head: str = "conv"  # the decoder's last layer: convolutions draw, or patch: each token draws its patch
    conv_channels: int = 32  # head=conv
    warp: bool = False  # head=conv: it can move the last frame, as where the camera moves
    anchor_frame: bool = False  # head=conv: it sees the last frame that was shown: what nobody drew
    anchor_attention: bool = False  # and looks up in that frame what comes back into view
    skip_connection: bool = False  # head=conv: what is clear already of the noisy frame can be kept
    state_filter: bool = False  # what the prior draws of a state is not seen, but corrects the frame
    measured_share: float = 0.0  # of the training clips that learn from what a filter measures of them
    copy_last: bool = True  # head=patch, predict=x: a gate per pixel between the last frame and what is drawn
    bounded_gate: bool = True  # that gate can always open again; false: worlds of files that do not name it
    average_velocity: bool = (
        False  # the decoder is given where a denoising step ends: average velocity (MeanFlow)
    )
    noise_samples: int = 2  # K, noise draws per encoder pass
    t_mean: float = 0.8  # t = sigmoid(N(t_mean, t_std)): most of training near the noise
    t_std: float = 1.2  # of that normal distribution: how far noise levels spread
    t_shift: float = 1.0  # below 1: lower noise levels, in training and between the denoising steps
    t_ramp: float = 0.0  # a noisier frame's error counts less, 1 − t_ramp·t times (Dreamer 4: 0.9)
    ctx_noise: float = 0.05  # η, perturbation of the context in training
    frame_noise: float = 0.0  # largest deviation of Gaussian noise on the input frames, in training
    frame_blend: float = 0.3  # largest share of the frame before in an input frame: what a bad copy leaves
    self_rollout_share: float = (
        0.0  # share of the training clips whose frames, but the first, the model imagined
    )
    state_noise: float = 0.03  # Gaussian noise on the encoder's input state, in units of its usual change
    change_weight: float = 5.0  # extra weight of a pixel that differs from the frame before
    foreground_weight: float = 2.0  # extra weight of a pixel that differs from the background
    anchor_attention_weight: float = 0.2  # of the loss of what was looked up, of itself
    state_weight: float = 0.1  # of the loss of the next state
    reward_weight: float = 0.01  # of the loss of the reward
    success_weight: float = 0.01  # of the loss of the success

    num_steps: int = 4  # denoising steps when stepping (paper: T)
    guidance: float = 1.0  # g, against the perturbed context; 1 = none

    def __post_init__(self) -> None:
        check_types(self, "model")
        for name, (low, high) in (BOUNDS | REAL_BOUNDS).items():
            between(f"model.{name}", getattr(self, name), low, high)
        if self.architecture not in ARCHITECTURES:
            complain(f"architecture={self.architecture!r}: expected one of {', '.join(ARCHITECTURES)}")
        if self.architecture != "scd" and self.guidance != 1:
            complain(
                f"guidance is against SCD's perturbed context, and architecture={self.architecture} has "
                "none: leave it at 1"
            )
        if self.architecture == "regression" and self.predict == "v":
            complain("architecture=regression draws frames, and knows no velocity: set predict=x")
        if self.heads > 0 and self.width % (2 * self.heads):
            complain(
                f"width={self.width} must be an even multiple of heads={self.heads} (rotary needs pairs)"
            )
        if self.predict not in ("x", "v"):
            complain(f"predict={self.predict!r}: expected 'x' (clean frame) or 'v' (velocity)")
        if not 0 <= self.t_ramp <= 1:
            complain(f"t_ramp={self.t_ramp}: expected a number between 0 and 1")
        if self.fusion not in FUSIONS:
            complain(f"fusion={self.fusion!r}: expected one of {', '.join(FUSIONS)}")
        if self.action_in not in ACTION_IN:
            complain(f"action_in={self.action_in!r}: expected one of {', '.join(ACTION_IN)}")
        if self.architecture not in ("scd", "regression") and self.action_in != "both":
            complain(
                f"architecture={self.architecture} has no encoder and no decoder: leave action_in at both"
            )
        if self.fusion == "none" and not self.add_context:
            complain("fusion=none needs add_context=true, or the decoder knows nothing of the past")
        if self.head not in ("patch", "conv"):
            complain(f"head={self.head!r}: expected 'patch' or 'conv'")
        if self.head == "conv" and self.predict == "v":
            complain(
                "head=conv mixes pixels of frames, and a velocity is none: set head=patch copy_last=false"
            )
        if self.warp and self.head != "conv":
            complain("warp is of head=conv, which mixes what was moved with what is drawn: leave it out")
        if self.anchor_frame and self.head != "conv":
            complain("anchor_frame is of head=conv, which mixes it with what is drawn: leave it out")
        if self.anchor_attention and not (self.anchor_frame and self.architecture != "copy_last"):
            complain(
                "anchor_attention looks at the anchor frame: set anchor_frame=true, or leave it out; "
                "architecture=copy_last has neither"
            )
        if self.state_filter and not self.anchor_frame:
            complain("state_filter corrects by the anchor frame, too: set anchor_frame=true, or leave it out")
        if self.measured_share and not self.state_filter:
            complain("measured_share is of what a filter measures: set state_filter=true, or leave it out")
        if self.skip_connection and self.head != "conv":
            complain(
                "skip_connection is of head=conv, which mixes the noisy frame with the others: leave it out"
            )
        if self.copy_last and self.predict == "v":
            complain("copy_last keeps pixels of a frame, and a velocity is none: set copy_last=false")

    @property
    def as_saved(self) -> dict[str, Any]:
        """Gives plain JSON; where what draws is given commands, that of worlds that knew of nothing else."""
        values = asdict(self)
        if self.sees_commands:
            del values["sees_commands"]
        return values


def of_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a model's settings as a file has them, with those that older files do not name.

    Their gate between the last frame and what is drawn had no bound, and draws as it always did; and nothing
    was moved.
    """
    return {
        "bounded_gate": values.get("head") != "patch",
        "sees_commands": True,
        "warp": False,
        "skip_connection": False,
        "anchor_frame": False,
        "anchor_attention": False,
        "state_filter": False,
        **values,
    }


MODELS = {
    "nano": ModelConfig(  # for minutes and small images: docs/pendulum.md
        width=96,
        heads=3,
        encoder_layers=2,
        decoder_layers=1,
        patch=8,
        window=4,
        noise_samples=1,
        num_steps=2,
        frame_blend=0.0,
        state_weight=1.0,
        head="patch",
    ),
    "micro": ModelConfig(width=128, heads=2, encoder_layers=4, decoder_layers=2, patch=8),
    "small": ModelConfig(width=192, heads=3, encoder_layers=6, decoder_layers=2),
    "base": ModelConfig(width=768, heads=12, encoder_layers=8, decoder_layers=4),  # the paper's SCD-B
    "medium": ModelConfig(width=1024, heads=16, encoder_layers=8, decoder_layers=4),  # the paper's SCD-M
}
