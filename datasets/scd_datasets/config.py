"""Where recorded data comes from and how it is checked: read-only dataclasses, no heavy import."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from scd_world.utils.checks import above, between, complain, one_of

LARGEST = 4096  # pixels of an image's shorter side: beyond, a number is a slip
LONGEST = 1000  # frames of a step: likewise
OnBadEpisode = Enum("OnBadEpisode", ["raise", "skip"])


@dataclass(frozen=True)
class SourceConfig:
    """Names a recording: a LeRobotDataset v2.0, v2.1 or v3.0 (a folder, or its name on the Hugging Face Hub),
    the folder or zip file of a replay buffer, robomimic's or stable-worldmodel's HDF5 file, or a folder of
    ALOHA's."""

    root: str | None = None  # folder or file of the recording
    repo_id: str | None = None  # its name on the Hugging Face Hub, in the place of a root
    revision: str | None = None  # of a repo_id: branch, tag or commit
    keys: dict[str, str] = field(default_factory=dict)  # recorded name → LeRobot's, where they differ
    cameras: list[str] = field(default_factory=list)  # short names of those to read; all by default
    # Features that are left out, as if not recorded: observation.environment_state, next.reward, …
    drop_features: list[str] = field(default_factory=list)
    image_size: int | None = None  # shorter side in pixels; None: as recorded, 96 where that is above 160
    resize: str = "stretch"  # to one size for all cameras; letterbox: in their own proportions, on black
    fps: float | None = None  # of a recording that stores none: a replay buffer, most HDF5
    stride: int = 1  # every n-th frame is read: with 3 a recording at 30 fps is one at 10
    # timestamp: rows must be 1/fps apart; index: a row is a step, however long it took (a robot's real clock)
    clock: str = "timestamp"
    decoder: str = "auto"  # of videos: pyav, torchcodec; auto: PyAV, the faster one

    def __post_init__(self) -> None:
        one_of("data.resize", self.resize, ("stretch", "letterbox"))
        one_of("data.clock", self.clock, ("timestamp", "index"))
        one_of("data.decoder", self.decoder, ("auto", "torchcodec", "pyav"))
        if self.image_size is not None:
            between("data.image_size", self.image_size, 1, LARGEST)
        if self.fps is not None:
            above("data.fps", self.fps, 0)
        between("data.stride", self.stride, 1, LONGEST)

    @property
    def low_dim_keys(self) -> dict[str, str]:
        """Gives `keys` without the cameras': for what is recorded beside, which may have none."""
        return {stored: key for stored, key in self.keys.items() if ".image" not in key}


@dataclass(frozen=True)
class CheckConfig:
    """Checks a dataset and builds the window store that training reads.

    scd-data data.root=data/pusht
    """

    data: SourceConfig = field(default_factory=SourceConfig)
    out: str | None = (
        None  # the store; by default <root>.zarr, <root>.windows.zarr of a .zarr, ./<name>.zarr of a repo_id
    )
    build: bool = True  # False: check only
    on_bad_episode: OnBadEpisode = OnBadEpisode["raise"]  # or skip: leave damaged episodes out and list them
    bench: bool = False  # measure how fast random windows come from the store; without data: a synthetic one

    def __post_init__(self) -> None:
        given = [name for name in (self.data.root, self.data.repo_id) if name]
        if len(given) != 1 and not (self.bench and not given):
            complain(f"name the dataset by data.root=<folder> or by data.repo_id=<user/name>; got {given}")


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Names a training's recording, and says how its episodes are split and sampled."""

    kind: str = "lerobot"  # lerobot: a LeRobotDataset; zarr: a window store, a replay buffer or HDF5
    skip_damaged: bool = False  # leave damaged episodes out instead of stopping at them
    holdout: float = 0.1  # share of the episodes, in [0, 0.9], kept for evaluation
    motion_share: float = (
        0.5  # share of the training windows, in [0, 1], in which something besides the robot moves
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("data.kind", self.kind, ("lerobot", "zarr"))
        between("data.holdout", self.holdout, 0, 0.9)
        between("data.motion_share", self.motion_share, 0, 1)


DATA = {kind: DataConfig(kind=kind) for kind in ("lerobot", "zarr")}
