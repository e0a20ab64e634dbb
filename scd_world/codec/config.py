"""Settings of the codec: what a model's frames are, and how a learnt one comes to be. Without torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from scd_world.robot_data.schema import DataSchema
from scd_world.utils.checks import above, between, one_of
from scd_world.utils.field_types import check_types

KINDS = ("identity", "autoencoder")
MOST_OBJECTS = 8  # of a camera
SHRINK = 4  # a latent's sides are this much smaller than the frame's


@dataclass(frozen=True)
class CodecSettings:
    """What stands between recorded frames and those that a model knows.

    identity: nothing, the model draws pixels. autoencoder: latents of a quarter of the height and width with
    3 channels per camera, learnt from the recording's own frames.
    """

    kind: str = "identity"  # identity: pixels; autoencoder: latents that are learnt first
    width: int = 72  # channels of the autoencoder's convolutions

    def __post_init__(self) -> None:
        check_types(self, "codec")
        one_of("codec.kind", self.kind, KINDS)
        between("codec.width", self.width, 1, 4096)

    @property
    def shrink(self) -> int:
        """How much smaller the sides of the model's frames are than those of the recorded ones."""
        return 1 if self.kind == "identity" else SHRINK

    @property
    def architecture(self) -> CodecConfig:
        """What a world has to remember of it, before anything is found."""
        return CodecConfig(kind=self.kind, width=self.width)


@dataclass(frozen=True)
class CodecConfig(CodecSettings):
    """A codec as it is, once all is learnt."""

    # Names of the numbers that are read off the frames: further ones of the state that a model sees.
    found: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "found", tuple(self.found))  # JSON knows lists alone
        super().__post_init__()

    @property
    def object_sizes(self) -> tuple[int, ...]:
        """How many of the numbers are each object's: 4 where its turn can be told, else 2."""
        return tuple(Counter(name.rsplit(" ", 2)[0] for name in self.found).values())


@dataclass(frozen=True)
class CodecTrainConfig(CodecSettings):
    """A codec, and how it is pretrained, before all else."""

    # Things that are sought in the frames of each camera that stands still, at most: rigid ones that a robot
    # moves. Where they are becomes part of the state (scd_world.objects).
    objects: int = 0

    steps: int = 4000  # updates, at most as many as the world gets
    batch_size: int = 8  # frames per update
    lr: float = 2e-3  # the highest learning rate
    noise: float = 0.05  # on the latents while it learns: what a world imagines is never exact
    time_share: float = 0.15  # of time_limit and time_budget, at most

    def __post_init__(self) -> None:
        super().__post_init__()
        between("codec.objects", self.objects, 0, MOST_OBJECTS)
        above("codec.steps", self.steps, 0)
        between("codec.batch_size", self.batch_size, 1, 65_536)
        above("codec.lr", self.lr, 0)
        between("codec.noise", self.noise, 0, 1)
        between("codec.time_share", self.time_share, 1e-6, 0.9)


def model_schema(config: CodecConfig, schema: DataSchema) -> DataSchema:
    """Gives the schema of what a model sees: the recorded one, with the size of the codec's frames, and what
    is found in them.

    ValueError where an autoencoder's cells do not divide the recorded frames.
    """
    if config.found:
        schema = replace(schema, environment_state=schema.environment_state + config.found)
    if config.kind == "identity":
        return schema
    if schema.height % SHRINK or schema.width % SHRINK:
        raise ValueError(
            f"codec=autoencoder looks at cells of {SHRINK}×{SHRINK} pixels, and the frames are "
            f"{schema.height}×{schema.width}: resize them with data.image_size, or set codec=identity"
        )
    height, width = schema.height // SHRINK, schema.width // SHRINK
    return replace(schema, height=height, width=width, recorded=(), resize="stretch")


CODECS = {kind: CodecTrainConfig(kind=kind) for kind in KINDS}
