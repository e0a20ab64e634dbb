"""What a dataset names stays inside it."""

from __future__ import annotations

import json

import pytest

from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.paths import fill, inside


def test_lerobots_own_templates():
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert fill(data, chunk_index=0, file_index=12) == "data/chunk-000/file-012.parquet"
    video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert fill(video, chunk_index=1, file_index=2, video_key="observation.images.a") == (
        "videos/observation.images.a/chunk-001/file-002.mp4"
    )


@pytest.mark.parametrize(
    "template",
    [
        "../other/{file_index}.parquet",
        "/etc/{file_index}.parquet",
        "data/{chunk_index:0999999999d}.parquet",  # took 33 s and all memory
        "data/{chunk_index.__class__}.parquet",
        "data/{file_index!r}.parquet",
        "data/{secret}.parquet",
        "data/{}.parquet",
        "",
    ],
)
def test_what_leads_elsewhere_or_asks_for_more_is_refused(template):
    with pytest.raises(ValueError, match=r"meta/info\.json|not lie inside"):
        fill(template, chunk_index=0, file_index=1)


@pytest.mark.parametrize("path", ["../x.png", "/x.png", "a/../../x.png", "..\\x.png", ""])
def test_an_image_lies_inside(path):
    with pytest.raises(ValueError, match="does not lie inside it"):
        inside(path)
    assert inside("images/a/x.png") == "images/a/x.png"


def test_a_dataset_that_reaches_out_does_not_open(recorded):
    file = recorded / "meta" / "info.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps(info | {"data_path": "../{chunk_index}/{file_index}.parquet"}))
    with pytest.raises(ValueError, match="does not lie inside it"):
        LeRobotFolder(recorded)
