"""A recording for the rerun viewer (.rrd): pictures and curves on one time line, with a layout of their own.

rerun is what LeRobot's `lerobot-dataset-viz` shows datasets with; the time lines `frame_index` and `time` are
alike. T frames, H W pixels, L lines of a plot.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scd_world.reporting.video import FAINT, IMAGINED

COLORS = {"recorded": FAINT, "imagined": IMAGINED}  # of lines with these names
APPLICATION = "scd_world"  # recordings of one application share the layout that a user arranges


@dataclass(frozen=True)
class Plot:
    """One plot: L named lines over T frames, NaN where a line has no value."""

    lines: Sequence[str]
    values: np.ndarray  # (T, L)


def load_rerun() -> Any:
    """Imports rerun's SDK; ValueError, with the cure, where it is not installed."""
    try:
        import rerun
        import rerun.blueprint
        from rerun import RecordingStream  # noqa: F401  another package is called rerun, too
    except ImportError as error:
        raise ValueError(
            f"rerun=true needs an extra: pip install 'lerobot_env_scd_world[rerun]' ({error})"
        ) from error
    return rerun


def write_recording(
    path: Path,
    fps: float,
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    plots: Mapping[str, Mapping[str, Plot]],
    about: str,
) -> None:
    """Writes one recording, lossless.

    pictures: camera → name (recorded, imagined, …) → uint8 (T, H, W, 3), a row of the layout for each camera.
    plots: group → name → plot, a tab of the layout for each group. about: Markdown, shown beside the plots.
    ValueError: rerun is not installed, or the pictures and plots have different numbers of frames.
    """
    rr = load_rerun()
    images = {("camera", c, n): frames for c, row in pictures.items() for n, frames in row.items()}
    curves = {("plot", g, n): plot for g, group in plots.items() for n, plot in group.items()}
    lengths = {len(frames) for frames in images.values()} | {len(plot.values) for plot in curves.values()}
    if len(lengths) != 1:
        raise ValueError(f"{path}: pictures and plots have {sorted(lengths)} frames, expected one number")
    # Its id is random: the viewer would take two files of one id for one recording.
    with rr.RecordingStream(APPLICATION) as stream:
        stream.save(path, default_blueprint=layout(rr, pictures, plots))
        stream.send_recording_name(f"{path.parent.name}/{path.stem}")
        stream.log("about", rr.TextDocument(about, media_type="text/markdown"), static=True)
        for parts, plot in curves.items():
            known = set(plot.lines) <= COLORS.keys()
            colors = [COLORS[line] for line in plot.lines] if known else None  # None: rerun's own
            stream.log(list(parts), rr.SeriesLines(names=list(plot.lines), colors=colors), static=True)
        for i in range(lengths.pop()):
            stream.set_time("frame_index", sequence=i)
            stream.set_time("time", duration=i / fps)
            for parts, frames in images.items():
                stream.log(list(parts), rr.EncodedImage(contents=png(frames[i]), media_type="image/png"))
            for parts, plot in curves.items():
                stream.log(list(parts), rr.Scalars(np.asarray(plot.values[i], np.float64)))


def layout(
    rr: Any, pictures: Mapping[str, Mapping[str, np.ndarray]], plots: Mapping[str, Mapping[str, Plot]]
) -> Any:
    """Arranges the views: a row of pictures per camera, below them a tab per group of plots."""
    views, origin = rr.blueprint, rr.new_entity_path
    rows = [
        views.Horizontal(
            *(views.Spatial2DView(origin=origin(["camera", c, n]), name=f"{c}: {n}") for n in row)
        )
        for c, row in pictures.items()
    ]
    tabs = [
        views.Grid(
            *(views.TimeSeriesView(origin=origin(["plot", g, n]), name=n) for n in group),
            name=g,
        )
        for g, group in plots.items()
    ]
    below = views.Horizontal(views.Tabs(*tabs), views.TextDocumentView(origin="about"), column_shares=[4, 1])
    return views.Blueprint(views.Vertical(*rows, below), collapse_panels=True)


def png(image: np.ndarray) -> bytes:
    """Encodes one image, uint8 (H, W, 3)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()
