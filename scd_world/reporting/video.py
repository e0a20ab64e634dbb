"""Pictures and films for people: true | imagined | difference, labelled; written as mp4, GIF or WebP.

Never measured from: metrics are taken on the raw tensors. Pictures are uint8 (H, W, 3), V cameras.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

PAPER, INK, FAINT = (255, 255, 255), (28, 32, 38), (130, 136, 145)
GIVEN, DREAMT = (176, 182, 190), (226, 106, 38)  # frame colours: shown to the model, drawn by it
GAIN = 3  # the difference is shown this many times as strong
GAP = 10


@dataclass(frozen=True)
class Panel:
    picture: np.ndarray  # uint8 (H, W, 3)
    frame: tuple[int, int, int] = GIVEN  # colour of the line around it


def side_by_cameras(pixels: np.ndarray) -> np.ndarray:
    """uint8 (…, V, H, W, 3) → (…, H, V·W, 3): the cameras next to each other."""
    return rearrange(pixels, "... v h w c -> ... h (v w) c")


def difference(true: np.ndarray, imagined: np.ndarray) -> np.ndarray:
    """uint8 (…, H, W, 3), GAIN · mean |true − imagined|: white where equal, black where far off."""
    amount = np.abs(true.astype(np.float32) - imagined).mean(-1) * GAIN
    return heat()[amount.clip(0, 255).round().astype(int)]


@cache
def heat() -> np.ndarray:
    """uint8 (256, 3): white, light orange, red, black."""
    stops = np.array([[255, 255, 255], [253, 190, 110], [214, 60, 40], [40, 0, 20]])
    at = np.linspace(0, 255, len(stops))
    return np.stack([np.interp(np.arange(256), at, stops[:, i]) for i in range(3)], axis=1).astype(np.uint8)


def enlarge(picture: np.ndarray, height: int) -> np.ndarray:
    """By the whole factor that comes closest to `height`; pixels stay pixels."""
    factor = max(1, round(height / picture.shape[0]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def letters(size: int) -> Any:
    """matplotlib's DejaVu Sans: Pillow's own font lacks × and the accents of people's task names."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def compose(
    rows: Sequence[Sequence[Panel]],
    columns: Sequence[str],
    names: Sequence[str] = (),
    note: str = "",
    height: int = 288,
    side: bool = False,
) -> np.ndarray:
    """A labelled table of panels as one uint8 picture with even sides.

    columns: a heading over each column. names: a line for each row, above it or, with `side`, left of it.
    note: one line at the bottom.
    """
    from PIL import Image, ImageDraw

    panels = [[enlarge(panel.picture, height) for panel in row] for row in rows]
    h, w = panels[0][0].shape[:2]
    size = max(14, round(h / 14))
    font = letters(size)
    line = size + 8
    left = GAP + (max((round(font.getlength(n)) for n in names), default=0) + GAP if side else 0)
    lead = line if names and not side else 0  # room for a row's name above it
    width = left + len(columns) * (w + GAP)
    total = GAP + line * any(columns) + len(rows) * (lead + h + GAP) + (line if note else 0)
    canvas = Image.new("RGB", (width + width % 2, total + total % 2), PAPER)
    draw = ImageDraw.Draw(canvas)

    top = GAP
    if any(columns):
        for i, text in enumerate(columns):
            draw.text((left + i * (w + GAP) + w / 2, top + line / 2 - 2), text, INK, font, anchor="mm")
        top += line
    for r, row in enumerate(panels):
        if names and not side:
            draw.text((left, top + line / 2), names[r], FAINT, font, anchor="lm")
        elif names:
            draw.text((GAP, top + h / 2), names[r], INK, font, anchor="lm")
        top += lead
        for i, picture in enumerate(row):
            x = left + i * (w + GAP)
            draw.rectangle((x - 2, top - 2, x + w + 1, top + h + 1), fill=rows[r][i].frame)
            canvas.paste(Image.fromarray(picture), (x, top))
        top += h + GAP
    if note:
        draw.text((left, top + line / 2 - 4), note, INK, font, anchor="lm")
    return np.asarray(canvas)


def compare(
    true: Sequence[np.ndarray],
    imagined: Sequence[np.ndarray],
    context: int,
    names: Sequence[str] = (),
    labels: tuple[str, str, str] = ("recorded", "imagined", f"|difference| × {GAIN}"),
    height: int = 288,
) -> list[np.ndarray]:
    """A film's pictures: a row per pair of episodes, uint8 (T, V, H, W, 3), the first `context` frames given.

    An episode that ends before the longest one stays on its last frame.
    """
    pictures, T = [], max(map(len, true))
    for i in range(T):
        given = i < context
        rows = []
        for t, m in zip(true, imagined, strict=True):
            a, b = (side_by_cameras(film[min(i, len(film) - 1)]) for film in (t, m))
            drawn = Panel(b, GIVEN if given else DREAMT)
            rows.append([Panel(a), drawn, Panel(difference(a, b))])
        done = f"context, frame {i + 1} of {context}" if given else f"imagined step {i - context + 1}"
        pictures.append(
            compose(rows, labels, names, f"{done} of {T - context}" if not given else done, height)
        )
    return pictures


def strip(
    true: np.ndarray,
    imagined: np.ndarray,
    context: int,
    horizons: Sequence[int],
    labels: tuple[str, str, str] = ("recorded", "imagined", "|difference|"),
    height: int = 192,
) -> np.ndarray:
    """One picture: rows recorded, imagined, difference; columns the last context frame and these horizons."""
    at = [context - 1, *(context - 1 + h for h in horizons)]
    a, b = side_by_cameras(true[at]), side_by_cameras(imagined[at])
    drawn = [Panel(p, GIVEN if i == 0 else DREAMT) for i, p in enumerate(b)]
    rows = [[Panel(p) for p in a], drawn, [Panel(p) for p in difference(a, b)]]
    heading = ["given", *(f"step {h}" for h in horizons)]
    return compose(rows, heading, labels, height=height, side=True)


# ---- files ---------------------------------------------------------------------------------------


def write_png(path: str | Path, picture: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path)


def write_mp4(path: str | Path, pictures: Iterable[np.ndarray], fps: int) -> None:
    """H.264 that every browser plays. Pictures uint8 (H, W, 3) of one size; odd sides lose a pixel."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16", "preset": "medium"})
        stream.pix_fmt = "yuv420p"
        for i, picture in enumerate(pictures):
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if i == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_animation(path: str | Path, pictures: Sequence[np.ndarray], fps: int) -> None:
    """An animated .webp or .gif that loops for ever: moving pictures for a README."""
    from PIL import Image

    first, *rest = [Image.fromarray(picture) for picture in pictures]
    kind = Path(path).suffix.lower()
    if kind not in (".gif", ".webp"):
        raise ValueError(f"{path}: an animation ends in .webp or .gif")
    settings = {"quality": 80, "method": 4} if kind == ".webp" else {"optimize": True}
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, **settings)
