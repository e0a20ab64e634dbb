"""The state-conditioned renderer: parts that keep their looks and change their places.

A robot's link, or a block that is pushed, is the same thing wherever it lies: in a frame of reference that
moves with it, it never changes. So the state is turned into K frames of reference, a linear map of the state
plus what a small network adds, and a function of a pixel's coordinates in all K frames, the same for every
image, gives its color. Where the state holds a pose to half a pixel, so does the drawing, however long the
rollout; what no state holds is left to the decoder, which gets this drawing beside the last frame
(`pixel_heads.py`). Run once per frame, pretrained before the rest (`fit_renderer.py`).

A state may be joined by all else that is known: how fast it changes, for a picture may be older than the
joints; the action that led there, for a gripper may be commanded and not measured; and a scene
representation, a few numbers that a network reads off a frame that was shown (`scene/encoder.py`). What lies
about is best not drawn at all: the parts are drawn over a layer of it (`scene/static_layer.py`), as cameras
that ride on the robot see it (`scene/cameras.py`).

F frames, S state, A action, Z scene representation, K parts, P cells of the image, V cameras, C = 3·V
channels, H W frame.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.model.prior import Scene, ShownFrame
from scd_world.scene.cameras import RidingCameras
from scd_world.scene.dense_motion import DenseMotion, Moved
from scd_world.scene.encoder import SceneEncoder
from scd_world.scene.static_layer import Heights, StaticLayer
from scd_world.utils.precision import full_precision

CELL = 2  # pixels: one evaluation of the function draws CELL² of them
FINENESS = 6.0  # deviation of the Fourier features' frequencies, radians over half an image
BACKGROUND_BIAS = 2.0  # before training, every pixel is mostly background
VELOCITY = 0.1  # by which a usual change is given


class StateRenderer(nn.Module):
    cell_grid: Tensor  # (3, P)
    background_cells: Tensor  # (P, V, 3, CELL²)
    usual_change: Tensor  # (S,)
    shown_actions: Tensor  # (A,)

    def __init__(
        self,
        size: int,
        background: Tensor,
        parts: int,
        width: int = 96,
        hidden: int | None = None,
        scene_features: int = 0,
        static_layer: bool = False,
        motion_channels: int = 0,
        shown_actions: Tensor | None = None,
        usual_change: Tensor | None = None,
    ) -> None:
        """size: S; background (C, H, W) in [-1, 1]. scene_features: Z, 0: the state alone is drawn; else
        static_layer: whether over what stays of a shown frame; shown_actions (A,), 1 for an action that is
        drawn by and 0 for one that is not; and usual_change (S,) of the state per step."""
        super().__init__()
        C, H, W = background.shape
        hidden = hidden or 8 * width // 3  # of what turns a state into frames of reference
        self.state_size = size
        self.scene_encoder, self.static_layer, self.cameras, self.heights = None, None, None, None
        self.motion = None
        self.register_buffer("usual_change", usual_change, persistent=False)
        shown_actions = torch.ones(0) if shown_actions is None else shown_actions
        self.register_buffer("shown_actions", shown_actions, persistent=False)
        if scene_features:
            known = 2 * size + len(self.shown_actions)  # numbers of a state, as `known` gives them
            self.scene_encoder = SceneEncoder(size, background.shape, scene_features)
            if static_layer:
                self.static_layer, self.heights = StaticLayer(C), Heights(C)
                self.cameras = RidingCameras(size, C // 3)
                if motion_channels:
                    self.motion = DenseMotion(C // 3, motion_channels, told=2 * known)
            size = known + scene_features
        self.num_cameras, self.cell = C // 3, CELL if H % CELL == W % CELL == 0 else 1
        self.grid_size = H // self.cell, W // self.cell
        # Of each part its turn (as a complex number) and its place.
        self.pose_linear = nn.Linear(size, 4 * parts)
        nn.init.normal_(self.pose_linear.weight, std=size**-0.5)
        nn.init.normal_(self.pose_linear.bias, std=0.3)
        self.pose_linear.bias.data.view(parts, 4)[:, 0] += 1.0  # about upright
        self.fourier = nn.Linear(size, hidden)
        nn.init.normal_(self.fourier.weight, std=0.5)
        nn.init.uniform_(self.fourier.bias, -torch.pi, torch.pi)
        self.pose_residual = nn.Sequential(  # of joints, whose pose no linear map gives
            *(nn.Linear(size + hidden, hidden), nn.GELU()),
            *(nn.Linear(hidden, hidden), nn.GELU()),
            zero_init(nn.Linear(hidden, 4 * parts)),
        )
        self.coord_embed = nn.Linear(2 * parts, width)
        nn.init.normal_(self.coord_embed.weight, std=FINENESS * (2 * parts) ** -0.5)
        nn.init.uniform_(self.coord_embed.bias, -torch.pi, torch.pi)
        self.mlp = nn.Sequential(
            *(nn.Linear(width, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
            zero_init(
                nn.Linear(width, 4 * self.num_cameras * self.cell**2)
            ),  # color, and how much is background
        )
        self.register_buffer("cell_grid", cell_grid(H, W, self.cell), persistent=False)
        self.register_buffer("background_cells", self.to_cells(background), persistent=False)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        """Takes renderers from before heights had convolutions of their own, and from before they knew of
        cameras that ride, where none does."""
        layer, heights = f"{prefix}static_layer.", f"{prefix}heights."
        if f"{layer}height.weight" in state_dict:  # what the static layer's told
            for name in [name for name in state_dict if name.startswith(f"{layer}layers.")]:
                state_dict[heights + name.removeprefix(layer)] = state_dict[name]
            for name in ("weight", "bias"):
                state_dict[f"{heights}out.{name}"] = state_dict.pop(f"{layer}height.{name}")
        of_planes = [name for name in state_dict if name.startswith(f"{layer}view.")]
        if of_planes and state_dict[f"{layer}view.moves"].any():
            lists[-1].append(
                "a camera that rides on the robot, seen by a homography: such worlds are no longer stepped. "
                "Train it anew; its codec/ folder in the new run's folder is taken as it is"
            )
        for name in of_planes:
            del state_dict[name]
        if of_planes:  # the same each time, or nobody would know it for the same world
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)  # the CPU's alone
                nothing = nn.ModuleDict(
                    {
                        "cameras": RidingCameras(self.state_size, self.num_cameras),
                        "heights": Heights(3 * self.num_cameras),
                    }
                )
            for name, value in nothing.state_dict().items():
                state_dict.setdefault(prefix + name, value)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)

    @property
    def of_scenes(self) -> list[nn.Module]:
        """The parts that look at a shown frame."""
        return [part for part in (self.scene_encoder, self.static_layer) if part is not None]

    def forward(
        self,
        state: Tensor,
        prev: Tensor | None = None,
        scene: Scene | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        """State (F, S) in model units → frame (F, C, H, W) in about [-1, 1]. Where there is a scene encoder:
        prev (F, S + A), state and action one frame earlier, the scene, and what `look_back` gives of them,
        unless it is to be asked."""
        given = self.inputs(state, prev, None if scene is None else scene.features)
        return self.to_frame(self.render_cells(given, self.cell_grid, self.behind(state, prev, scene, where)))

    @property
    def carries(self) -> bool:
        """Says whether a camera rides, as `StatePrior.carries` does."""
        return self.cameras is not None and self.cameras.any_moves

    def look_back(self, scene: Scene, state: Tensor, last: Tensor) -> Tensor | None:
        """Gives where in the shown frame is what the cameras see, as `StatePrior.look_back` does."""
        if self.cameras is None or not self.carries:
            return None
        return self.cameras.look_back(scene, state, last)

    def move_shown(
        self, drawn: Tensor, state: Tensor, prev: Tensor, shown: ShownFrame, where: Tensor | None
    ) -> Moved:
        """Brings what a shown frame has and its drawing lacks to where it is when `drawn` (F, C, H, W) is
        drawn, of a state and what led there, as `forward` has them; where: what `look_back` says of that.
        Only where there is a `motion`."""
        assert self.motion is not None
        assert self.cameras is not None
        there = shown.state.tensor_split([self.state_size], dim=-1)
        told = torch.cat([self.known(state, prev), self.known(*there)], dim=-1)
        return self.motion(drawn, shown.frame, shown.drawn, told, where, self.cameras.moves)

    def behind(
        self, state: Tensor, prev: Tensor | None, scene: Scene | None, where: Tensor | None = None
    ) -> Tensor:
        """Gives the cells of what is drawn over, (F or 1, P, V, 3, CELL²)."""
        if scene is None or prev is None or self.cameras is None or not scene.still.shape[1]:
            return self.background_cells[None]
        if where is None:
            where = self.look_back(scene, state, prev[:, : self.state_size])
        return self.to_cells(self.cameras.seen_at(where, scene, self.background))

    def inputs(self, state: Tensor, prev: Tensor | None, features: Tensor | None) -> Tensor:
        """Gives all that a frame is drawn by, (F, S) or (F, 2·S + A + Z)."""
        if self.scene_encoder is None:
            return state
        assert prev is not None, "drawn by the state before, too"
        assert features is not None, "drawn by a scene, too"
        return torch.cat([self.known(state, prev), features], dim=-1)

    def known(self, state: Tensor, prev: Tensor) -> Tensor:
        """Gives a state, how fast it changes, and what is shown of the action that led there, (F, 2·S +
        A)."""
        last, action = prev.tensor_split([self.state_size], dim=-1)
        velocity = (VELOCITY * (state - last) / self.usual_change).clamp(-1, 1)
        return torch.cat([state, velocity, self.shown_actions * action], dim=-1)

    def scene(self, shown: Tensor, shown_state: Tensor) -> Scene:
        """Reads the scene off a frame (F, C, H, W) and the state there, with state and action one frame
        earlier (F, 2·S + A)."""
        scene = self.sight(shown, shown_state)
        if self.scene_encoder is not None:
            scene = scene._replace(features=self.scene_encoder(shown, shown_state[:, : self.state_size]))
        if self.static_layer is not None:
            scene = scene._replace(still=self.static_layer(shown, self.background))
        return scene

    def sight(self, shown: Tensor, shown_state: Tensor) -> Scene:
        """Reads off a frame as `scene` does what `look_back` asks of it."""
        scene = Scene.unknown(shown, shown_state)
        if self.heights is None or self.cameras is None:
            return scene
        state, last, _ = shown_state.tensor_split([S := self.state_size, 2 * S], dim=1)
        flat = torch.zeros_like(shown[:, : self.num_cameras])
        height = self.heights(shown, self.background) if self.carries else flat
        return scene._replace(view=self.cameras.poses(state, last), height=height)

    @property
    def background(self) -> Tensor:
        """(1, C, H, W)"""
        return self.to_frame(self.background_cells[None])

    def render_cells(self, state: Tensor, cells: Tensor, background: Tensor) -> Tensor:
        """Draws some cells, (F, n, V, 3, CELL²): state, what `inputs` gives; (row, column, 1) of the cells
        (F or 1, 3, n); and what of the background is there, (F or 1, n, V, 3, CELL²)."""
        with full_precision(state):  # bf16 does not know where a pixel is
            features = self.coord_embed.weight @ self.part_transforms(state.float())  # (F, width, 3)
            features = (features @ cells + self.coord_embed.bias[:, None]).sin()
        out = self.mlp(rearrange(features, "f d n -> f n d")).float()
        out = rearrange(out, "f n (v c p) -> f n v c p", v=self.num_cameras, c=4)
        drawn, keep = out.tensor_split([3], dim=3)
        keep = torch.sigmoid(keep + BACKGROUND_BIAS)
        return keep * background + (1 - keep) * drawn

    def to_cells(self, frame: Tensor) -> Tensor:
        """(…, C, H, W) → (…, P, V, 3, CELL²)."""
        p = self.cell
        return rearrange(frame, "... (v c) (y p) (x q) -> ... (y x) v c (p q)", c=3, p=p, q=p)

    def to_frame(self, cells: Tensor) -> Tensor:
        """(F, P, V, 3, CELL²) → (F, C, H, W)."""
        (y, x), p = self.grid_size, self.cell
        return rearrange(cells, "f (y x) v c (p q) -> f (v c) (y p) (x q)", y=y, x=x, p=p, q=p)

    def part_transforms(self, state: Tensor) -> Tensor:
        """(F, 2·K, 3): applied to (row, column, 1) of a pixel, its coordinates in the K frames of reference.

        With the frame's place p and turn d as complex numbers, and the pixel z: conj(d) · (z − p).
        """
        residual = self.pose_residual(torch.cat([state, self.fourier(state).sin()], dim=-1))
        a, b, y, x = rearrange(self.pose_linear(state) + residual, "f (k four) -> four f k", four=4)
        rows = torch.stack([a, b, -a * y - b * x], dim=-1)
        columns = torch.stack([-b, a, b * y - a * x], dim=-1)
        return torch.stack([rows, columns], dim=2).flatten(1, 2)


def cell_grid(height: int, width: int, cell: int) -> Tensor:
    """(3, P): row, column and 1 of each cell's middle; the longer side of the image is [-1, 1]."""
    rows, columns = (torch.arange(n // cell, dtype=torch.float32) for n in (height, width))
    half = max(height, width) / 2
    rows, columns = ((i + 0.5) * cell - n / 2 for i, n in ((rows, height), (columns, width)))
    grid = torch.stack(torch.meshgrid(rows / half, columns / half, indexing="ij")).flatten(1)
    return torch.cat([grid, torch.ones(1, grid.shape[1])])
