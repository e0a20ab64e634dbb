"""How fast a LeRobot video dataset becomes a window store: a synthetic one, made where none is, is timed.

python recipes/datasets/import_speed.py data/arm [torchcodec]
"""

import sys
import time
from pathlib import Path

import numpy as np

from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.video_readers import video_class

EPISODES, STEPS, FPS = 50, 100, 30
CAMERAS = {"front": (480, 640), "wrist": (240, 320)}
JOINTS = [f"joint_{i}" for i in range(6)]


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [120 + 60 * np.sin(x / 37) + 20 * np.sin(y / 11), 110 + 50 * np.cos(y / 53)]
    scene = np.stack([*waves, 90 + 40 * np.sin((x + y) / 71)], axis=-1)
    return np.clip(scene + rng.normal(0, 6, scene.shape), 0, 255).astype(np.uint8)


def frame_of(rng: np.random.Generator, scene: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Paints a red block under a dark arm; half of the rows flicker, so that no frame is free to encode."""
    image, (height, width) = scene.copy(), scene.shape[:2]
    y, x, half = int(place[0] * height), int(place[1] * width), height // 10
    image[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = (200, 30, 40)
    image[:, max(x - 4, 0) : x + 4] //= 2
    image[::2] = np.clip(image[::2].astype(int) + rng.integers(-3, 4), 0, 255)
    return image


def write_synthetic(root: Path) -> None:
    """Writes a dataset with LeRobot's own writer and video settings; a few minutes."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    joint_feature = {"dtype": "float32", "shape": (len(JOINTS),), "names": JOINTS}
    features = {"observation.state": joint_feature, "action": joint_feature}
    for name, size in CAMERAS.items():
        video = {"dtype": "video", "shape": (*size, 3), "names": ["height", "width", "channels"]}
        features[f"observation.images.{name}"] = video
    dataset = LeRobotDataset.create("local/arm", FPS, features, root=root, image_writer_threads=2)
    rng = np.random.default_rng(0)
    scenes = {name: background(rng, *size) for name, size in CAMERAS.items()}
    for episode in range(EPISODES):
        place, speed = rng.uniform(0.2, 0.8, 2), rng.normal(0, 0.01, 2)
        joints = rng.uniform(-1, 1, len(JOINTS)).astype(np.float32)
        for _ in range(STEPS):
            action = (joints + rng.normal(0, 0.05, len(JOINTS))).astype(np.float32)
            frame = {
                f"observation.images.{name}": frame_of(rng, scene, place) for name, scene in scenes.items()
            }
            task = "push the cube" if episode % 2 else "lift the cube"
            dataset.add_frame(frame | {"observation.state": joints, "action": action, "task": task})
            joints, speed = action, 0.95 * (speed + rng.normal(0, 0.004, 2))
            place = np.clip(place + speed, 0.05, 0.95)
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()


def main(root: Path, decoder: str = "auto") -> None:
    if not root.exists():
        write_synthetic(root)
    _, name = video_class(decoder)  # imports what it needs before the clock starts
    began, spent = time.perf_counter(), time.process_time()
    check_dataset(LeRobotFolder(root, image_size=96, decoder=decoder), root.with_suffix(".zarr"))
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    images = EPISODES * STEPS * len(CAMERAS)
    print(f"{name}: {images / seconds:.0f} images/s, {images / spent:.0f} per CPU-second")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
