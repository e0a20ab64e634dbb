"""A world on disk: a model with all that is needed to step it, in a folder without pickle and without code.

`config.json` (model, data schema, versions) · `model.safetensors` (EMA weights) · `stats.safetensors` ·
`starts/` · `manifest.json` (SHA-256 of each file) · `README.md` (model card).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import scd_world
from scd_world.model.config import ModelConfig
from scd_world.model.history import frame_before
from scd_world.model.rollout_state import Imagined
from scd_world.model.world_model import BaseModel
from scd_world.robot_data.normalizer import Stats, decode_pixels, encode_pixels
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.atomic_folder import MANIFEST, refuse_foreign, verify, write_folder
from scd_world.world.build_model import make_model
from scd_world.world.compiled_step import Stepper
from scd_world.world.starts import Moment, Starts

FORMAT = 3


@dataclass
class World:
    """A trained model, the statistics of its data, and recorded starts. Raw units in, raw units out."""

    model: BaseModel
    stats: Stats
    starts: Starts
    card: str = ""  # the text of README.md
    provenance: dict[str, Any] = field(default_factory=dict)  # what it was trained with: free JSON, kept

    def __post_init__(self) -> None:
        self.stepper = Stepper(self.model)

    @property
    def schema(self) -> DataSchema:
        return self.model.schema

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W): the shape of one row's noise."""
        return self.schema.channels, self.schema.height, self.schema.width

    @cached_property
    def fingerprint(self) -> str:
        """Of all that stepping depends on: sizes, schema, weights, statistics (32 MB are hashed in .1 s)."""
        digest = hashlib.sha256(json.dumps([asdict(self.config), self.schema.to_dict()]).encode())
        for part in (self.model.state_dict(), vars(self.stats)):
            for name, value in part.items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> World:
        self.model.to(device)
        self.stats, self.stepper = self.stats.to(device), Stepper(self.model)
        return self

    # ---- stepping in raw units -------------------------------------------------------------------------

    def begin(self, moments: Sequence[Moment]) -> Imagined:
        """One row per moment; moments may have contexts of different lengths."""
        s = self.model.initial(*self.last_frames(moments), self.tasks(moments))
        self.give_context(s, np.arange(len(moments)), moments)
        return s

    def restart(self, s: Imagined, rows: Sequence[int], moments: Sequence[Moment]) -> None:
        """These rows of `s` begin anew, in place; equal to a fresh episode."""
        s.check()
        index = torch.as_tensor(rows, device=self.device)
        s.obs[index], s.state[index], s.before[index] = self.last_frames(moments)
        s.reward[index] = s.success[index] = 0.0
        s.copies[index], s.age[index] = self.model.doubt.begin(s.before[index], s.state[index]), 0
        s.task[index] = self.tasks(moments)
        s.cache.first[index] = s.cache.position
        self.give_context(s, np.asarray(rows), moments)

    @torch.no_grad()
    def give_context(self, s: Imagined, rows: np.ndarray, moments: Sequence[Moment]) -> None:
        """Encodes the frames before each moment, rows with equally many together, into the cache."""
        lengths = np.array([len(moment.action) for moment in moments])
        for length in np.unique(lengths[lengths > 0]):
            chosen = np.flatnonzero(lengths == length)
            pixels = np.stack([moments[i].pixels for i in chosen])
            obs = encode_pixels(torch.from_numpy(pixels).to(self.device))
            state = self.stats.encode_state(self.tensor(np.stack([moments[i].state for i in chosen])))
            first = self.stats.encode_before(self.tensor(np.stack([moments[i].before for i in chosen])))
            act = self.stats.encode_action(self.tensor(np.stack([moments[i].action for i in chosen])))
            task = self.tasks([moments[i] for i in chosen])
            cache = s.cache.fresh(len(chosen), before=int(length))
            before = frame_before(state[:, :-1], act, first)
            for i in range(length):
                self.model.encode_step(obs[:, i], before[:, i], state[:, i], act[:, i], task, cache)
            s.cache.replace(torch.as_tensor(rows[chosen], device=self.device), cache)

    def step(
        self,
        s: Imagined,
        action: Any,
        noise: Tensor,
        num_steps: int | None = None,
        compiled: bool = False,
    ) -> Imagined:
        """action (B, A) raw units, noise (B, C, H, W) standard normal. compiled: see `graph.py`."""
        act = self.stats.encode_action(self.tensor(action))
        return self.stepper(s, act, noise.to(self.device), num_steps, compiled)

    def prepare(self, s: Imagined, num_steps: int | None = None, compiled: bool = False) -> None:
        """Whatever the first step of so many rows would otherwise have to do first."""
        self.stepper.prepare(s, num_steps, compiled)

    def look(self, s: Imagined) -> dict[str, np.ndarray]:
        """Fresh arrays: pixels uint8 (B, V, H, W, 3); raw state (B, S) and reward (B,); success (B,);
        uncertainty (B,), the state error to expect (`doubt.py`), NaN where the data has no state."""
        return {
            "pixels": decode_pixels(s.obs).cpu().numpy(),
            "state": self.stats.decode_state(s.state).float().cpu().numpy(),
            "reward": self.stats.decode_reward(s.reward).float().cpu().numpy(),
            "success": s.success.float().cpu().numpy().copy(),
            "uncertainty": self.model.doubt.error(s.copies).cpu().numpy(),
        }

    def last_frames(self, moments: Sequence[Moment]) -> tuple[Tensor, Tensor, Tensor]:
        """Frame, state, and state and action one frame earlier (at rest at an episode's first frame)."""
        pixels = torch.from_numpy(np.stack([moment.pixels[-1] for moment in moments])).to(self.device)
        state = self.tensor(np.stack([moment.state[-1] for moment in moments]))
        before = self.tensor(np.stack([moment.just_before for moment in moments]))
        return encode_pixels(pixels), self.stats.encode_state(state), self.stats.encode_before(before)

    def tasks(self, moments: Sequence[Moment]) -> Tensor:
        """(B,) which of the schema's tasks each row does."""
        return torch.tensor([moment.task for moment in moments], device=self.device)

    def tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    # ---- disk ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, half: bool = False, beside: Sequence[Path] = ()) -> Path:
        """Writes the folder whole or not at all; an older world there is replaced only by a complete one.

        half: weights as float16 (for shipping; loading gives float32 again, rounded once).
        beside: files that are put beside them, pictures of the card.
        """
        folder = Path(folder)
        refuse_foreign(folder, MANIFEST)
        write_folder(folder, lambda made: self.write_files(made, half, beside))
        return folder

    def write_files(self, folder: Path, half: bool, beside: Sequence[Path]) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        save_file(
            {name: w.half() for name, w in weights.items()} if half else weights, folder / "model.safetensors"
        )
        self.stats.to("cpu").save(folder / "stats.safetensors")
        self.starts.save(folder / "starts")
        config = {
            "format": FORMAT,
            "scd_world": scd_world.__version__,
            "torch": torch.__version__,
            "model": asdict(self.config),
            "schema": self.schema.to_dict(),
            "provenance": self.provenance,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (folder / "README.md").write_text(self.card, encoding="utf-8")
        for file in beside:
            shutil.copy(file, folder / file.name)

    @classmethod
    def load(
        cls, source: str | Path, device: str | torch.device = "cpu", revision: str | None = None
    ) -> World:
        """A folder, or a Hugging Face Hub id (`user/name`, with a pinned `revision` if given)."""
        folder = find_folder(source, revision)
        verify(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("format") != FORMAT:
            raise ValueError(
                f"{folder} is a world of format {config.get('format')!r}; scd_world {scd_world.__version__} "
                f"reads format {FORMAT}: train it again (the recordings still fit), or install the version "
                f"that wrote it, {config.get('scd_world')}"
            )
        stats = Stats.load(folder / "stats.safetensors")
        model = make_model(model_config(config["model"]), DataSchema.from_dict(config["schema"]), stats)
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({name: w.float() for name, w in weights.items()})
        model.eval().requires_grad_(False)
        starts = Starts.load(folder / "starts")
        card = (folder / "README.md").read_text(encoding="utf-8")
        return cls(model, stats, starts, card, config["provenance"]).to(device)

    def push_to_hub(self, repo_id: str, private: bool = True) -> str:
        """Uploads the world's folder; gives its address on the Hub."""
        from huggingface_hub import HfApi

        api = HfApi()
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as parent:
            api.upload_folder(repo_id=repo_id, folder_path=self.save(Path(parent) / "world"))
        return str(url)


def model_config(values: dict[str, Any]) -> ModelConfig:
    known = set(ModelConfig.__dataclass_fields__)
    if unknown := set(values) - known:
        raise ValueError(f"config.json: unknown model settings {sorted(unknown)}; known are {sorted(known)}")
    return ModelConfig(**values)


def start_from(model: BaseModel, source: str | Path) -> dict[str, Any]:
    """Gives `model` the weights of a world, to go on learning or to adapt it; returns its provenance."""
    world = World.load(source)
    try:
        model.load_state_dict(world.model.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"the world {source} has other shapes than this model and its data: take its model settings "
            f"(config.json) and data with its cameras, state and action sizes ({error})"
        ) from error
    return world.provenance


def find_folder(source: str | Path, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            inside = folder / "world"
            hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else ""
            raise ValueError(f"{folder} is not a world: it holds no config.json{hint}")
        return folder
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"no world at {folder.absolute()}: no such folder (and not a Hub id `user/name`)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"no world {str(source)!r}: no such folder here, and the Hugging Face Hub gave none ({error})"
        ) from error
