"""What LeRobot's writer is asked for: rates that are no whole numbers."""

import numpy as np
import pytest

from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.writing.lerobot_writer import LeRobotWriter

FEATURES = {
    "observation.images.top": {
        "dtype": "image",
        "shape": (64, 64, 3),
        "names": ["height", "width", "channels"],
    },
    "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
}


@pytest.mark.slow
def test_a_fractional_rate_is_written_and_read_back(tmp_path):
    with LeRobotWriter(tmp_path / "d", 29.97, FEATURES, {}) as writer:
        for i in range(20):
            image = np.full((64, 64, 3), i, np.uint8)
            action = np.array([i, 0], np.float32)
            writer.add_frame({"observation.images.top": image, "action": action, "task": "x"})
        writer.save_episode({})
    assert check_dataset(LeRobotFolder(tmp_path / "d")).schema.fps == 29.97


def test_lerobots_video_encoder_knows_whole_rates_alone(tmp_path):
    with pytest.raises(ValueError, match=r"not 29\.97 fps: store_as_video=false"):
        LeRobotWriter(tmp_path / "d", 29.97, FEATURES, {}, videos=True)
    assert not (tmp_path / "d").exists()
