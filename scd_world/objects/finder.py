"""All that is known of the objects in a robot's pictures, and where they are in new ones.

What is found becomes part of the state that a model sees. Nobody tells it: where objects are is read off the
frames that a world is shown, and from then on it is imagined.

B recordings side by side, T frames of each, V cameras, H W pixels, N numbers that are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scd_world.objects.discover import with_drawn
from scd_world.objects.expected import unit
from scd_world.objects.scenes import Scenes
from scd_world.objects.sprite import Sprite
from scd_world.objects.track import follow, numbers, pose_of


class KnownObject(NamedTuple):
    """An object as one camera sees it."""

    camera: int
    sprite: Sprite


Expect = Callable[[int, Tensor, int], Scenes]  # camera, its frames uint8 (B, 3, H, W), their time


class ObjectFinder(nn.Module):
    """Finds its objects in frames."""

    background: Tensor  # (V, 3, H, W) in [-1, 1]

    def __init__(self, background: Tensor, objects: Sequence[KnownObject]) -> None:
        super().__init__()
        self.set(background, objects)

    def set(self, background: Tensor, objects: Sequence[KnownObject]) -> None:
        """Replaces all that is known."""
        self.register_buffer("background", background)
        self.count = len(objects)
        for i, (camera, sprite) in enumerate(objects):
            facts = torch.tensor([camera, sprite.radius, sprite.turns], dtype=torch.float32)
            self.register_buffer(f"facts_{i}", facts)
            self.register_buffer(f"picture_{i}", sprite.image)

    @property
    def objects(self) -> list[KnownObject]:
        found = []
        for i in range(self.count):
            camera, radius, turns = getattr(self, f"facts_{i}").tolist()
            found.append(KnownObject(int(camera), Sprite(getattr(self, f"picture_{i}"), radius, bool(turns))))
        return found

    def _load_from_state_dict(self, weights: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes other objects than its own, and as many as there are: they are found in data, not built."""
        objects, i = [], 0
        while (facts := weights.get(f"{prefix}facts_{i}")) is not None and facts.shape == (3,):
            image = weights.get(f"{prefix}picture_{i}")
            if image is None or image.ndim != 3 or len(image) != 4:
                break
            camera, radius, turns = facts.tolist()
            objects.append(KnownObject(int(camera), Sprite(image, radius, bool(turns))))
            i += 1
        background = weights.get(f"{prefix}background")
        if background is not None and background.shape == self.background.shape and objects:
            self.set(background.to(self.background), objects)
        super()._load_from_state_dict(weights, prefix, *rest)

    def names(self, cameras: Sequence[str]) -> tuple[str, ...]:
        """Names the N numbers."""
        found: list[str] = []
        for i, (camera, sprite) in enumerate(self.objects):
            for point in ("middle", "tip") if sprite.turns else ("middle",):
                found += [f"{cameras[camera]} object {i} {point} {axis}" for axis in ("row", "column")]
        return tuple(found)

    @torch.no_grad()
    def find(
        self, frames: Iterable[Tensor], expect: Expect | None = None, before: Tensor | None = None
    ) -> Tensor:
        """Follows the objects through frames in their order, each uint8 (B, V, H, W, 3), later ones of the
        first recordings alone; gives where they are, (B, T, N) in px, and NaN after a recording's end.

        expect: what is expected in a camera's frames; None: its background. before (B, N): where the objects
        were one frame earlier; None: nobody knows.
        """
        objects = self.objects
        poses: list[Tensor | None] = [None] * self.count
        if before is not None:
            poses = [*self.poses(before)]
        rows: list[Tensor] = []
        for time, now in enumerate(frames):
            views = now.to(self.background.device).movedim(-1, 2)
            scenes: dict[int, Scenes] = {}
            where = []
            for i, (camera, sprite) in enumerate(objects):
                if camera not in scenes:
                    scenes[camera] = (expect or self.background_alone)(camera, views[:, camera], time)
                last = poses[i]
                pose, _ = follow(sprite, scenes[camera], None if last is None else last[: len(now)])
                poses[i] = pose
                where.append(numbers(sprite, pose))
                if any(other.camera == camera for other in objects[i + 1 :]):
                    scenes[camera] = with_drawn(scenes[camera], sprite, pose)
            rows.append(torch.cat(where, -1))
        most = len(rows[0])
        ended = [row.new_full((most - len(row), row.shape[1]), torch.nan) for row in rows]
        return torch.stack([torch.cat(pair) for pair in zip(rows, ended, strict=True)], 1)

    def background_alone(self, camera: int, frames: Tensor, time: int) -> Scenes:
        still = self.background[camera, None]
        return Scenes(unit(frames), still, torch.zeros_like(still[:, :1], dtype=torch.bool))

    def poses(self, found: Tensor) -> list[Tensor]:
        """Gives, of each object, the poses (…, 3) that numbers (…, N) say."""
        sizes = [4 if sprite.turns else 2 for _, sprite in self.objects]
        parts = found.split(sizes, -1)
        return [pose_of(known.sprite, part) for known, part in zip(self.objects, parts, strict=True)]
