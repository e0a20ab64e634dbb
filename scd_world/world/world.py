"""A world on disk: a model with all that is needed to step it, in a folder without pickle and without code.

`config.json` (model, codec, data schema, versions) · `model.safetensors` (EMA weights) · `codec.safetensors`
(where the codec is learnt) · `stats.safetensors` · `starts/` · `manifest.json` (SHA-256 of each file) ·
`README.md` (model card).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import scd_world
from scd_world.codec.codec import Codec, Identity, with_found
from scd_world.model.config import ModelConfig
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.rollout_state import RolloutState, Shown
from scd_world.model.world_model import Step, WorldModel
from scd_world.prior.config import PriorConfig
from scd_world.prior.state_prior import PretrainedStatePrior
from scd_world.prior.uncertainty import KNOWN
from scd_world.robot_data.clip import previous_state_action
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.atomic_folder import (
    MANIFEST,
    OLD,
    beside,
    blaming,
    names_in,
    refuse_foreign,
    verify,
    write_folder,
)
from scd_world.utils.checks import one_of
from scd_world.world import format3
from scd_world.world.compiled_step import Stepper
from scd_world.world.readout import Readout
from scd_world.world.starts import StartState, StartStates
from scd_world.world.transfer import HostCopy
from scd_world.world.weights import (
    CODEC,
    WEIGHTS,
    as_saved,
    make_model,
    make_normalizer,
    read_codec,
    read_tensors,
)
from scd_world.world.world_config import FORMAT, read_config

IDS = "scd_world/"  # that the ids of its environments begin with
WORLD_FILES = ("config.json", "model.safetensors", "stats.safetensors", "README.md", "starts/zarr.json")


@dataclass
class World:
    """A trained model, its codec, the statistics of its data, and recorded start states. Raw units in, raw
    units out."""

    model: WorldModel
    stats: Normalizer
    starts: StartStates
    card: str = ""  # the text of README.md
    provenance: dict[str, Any] = field(default_factory=dict)  # what it was trained with: free JSON, kept
    codec: Codec = None  # type: ignore[assignment]  # None: the model draws pixels

    def __post_init__(self) -> None:
        self.codec = Identity(self.model.schema) if self.codec is None else self.codec
        self.stepper = Stepper(self.model)

    @property
    def schema(self) -> DataSchema:
        """Of what goes in and out. What the model sees is `model.schema`: smaller with a learnt codec."""
        return self.codec.schema

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def prior_config(self) -> PriorConfig:
        """What the state prior is made of."""
        prior = self.model.prior
        return prior.config if isinstance(prior, PretrainedStatePrior) else PriorConfig(kind="none")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the model's own frames, and so of one row's noise."""
        schema = self.model.schema
        return schema.channels, schema.height, schema.width

    @property
    def detail_shape(self) -> tuple[int, int, int]:
        """Of what is kept of a shown frame beside its code, (C', H, W); C' = 0 where nothing is."""
        if not (self.config.anchor_frame and self.codec.keeps_detail):
            return 0, *self.frame_shape[1:]
        return self.schema.channels, self.schema.height, self.schema.width

    @property
    def images_add_nothing(self) -> bool:
        """Says whether the state prior is all there is of state, reward and success: a world told where
        things are can be trained with these losses at 0, and its heads then add zeros."""
        return bool(self.model.prior.num_features) and self.model.core.heads.adds_nothing

    @cached_property
    def fingerprint(self) -> str:
        """Of all that stepping depends on: sizes, schema, weights, statistics (32 MB are hashed in .1 s)."""
        digest = hashlib.sha256(
            json.dumps([self.config.as_saved, self.prior_config.as_saved, self.schema.to_dict()]).encode()
        )
        for part in (self.model.state_dict(), self.stats.tensors):
            for name, value in part.items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy())
        if not self.codec.is_plain:
            digest.update(self.codec.fingerprint.encode())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> World:
        self.model.to(device)
        self.codec.to(device)
        self.stats, self.stepper = self.stats.to(device), Stepper(self.model)
        return self

    # ---- stepping in raw units -------------------------------------------------------------------------

    def reset(self, starts: Sequence[StartState]) -> RolloutState:
        """Starts one row per start state, each with its recorded context in the cache.

        starts: from `World.starts.get(episode, frame, context)`; their contexts may differ in length.
        """
        starts = self.complete(starts)
        shown = self.last_frames(starts)
        s = self.model.initial(self.codec.encode(shown), *self.last_states(starts), self.tasks(starts))
        s = self.keep_detail(s, shown)
        self.encode_context(s, np.arange(len(starts)), starts)
        return s

    def reset_rows(self, s: RolloutState, rows: Sequence[int], starts: Sequence[StartState]) -> None:
        """Starts these rows of `s` anew, in place: equal to a fresh episode, whatever the others do.

        rows: r indices into s; starts: r start states. RuntimeError where `s` was stepped on already.
        """
        s.check()
        starts = self.complete(starts)
        index = torch.as_tensor(rows, device=self.device)
        shown = self.last_frames(starts)
        s.obs[index] = obs = self.codec.encode(shown)
        s.state[index], s.prev[index] = self.last_states(starts)
        for name, value in self.look_at(obs, s.state[index], s.prev[index])._asdict().items():
            getattr(s, name)[index] = value
        if self.config.anchor_frame:
            s.detail[index] = self.codec.detail(shown, obs)
        s.reward[index] = s.success[index] = s.image_error[index] = 0.0
        s.ensemble[index] = self.model.prior.init_ensemble(s.prev[index], s.state[index])
        s.steps_since_observed[index] = 0
        s.task[index] = self.tasks(starts)
        s.cache.clear(index)
        self.encode_context(s, np.asarray(rows), starts)

    @torch.no_grad()
    def encode_context(self, s: RolloutState, rows: np.ndarray, starts: Sequence[StartState]) -> None:
        """Encodes the frames before each start, rows with equally many together, into the cache."""
        lengths = np.array([len(start.action) for start in starts])
        for length in np.unique(lengths[lengths > 0]):
            chosen = np.flatnonzero(lengths == length)
            pixels = np.stack([starts[i].pixels for i in chosen])
            obs = self.codec.encode(torch.from_numpy(pixels).to(self.device))
            state = self.stats.encode_state(self.tensor(np.stack([starts[i].state for i in chosen])))
            first = self.stats.encode_prev(self.tensor(np.stack([starts[i].prev for i in chosen])))
            action = self.stats.encode_action(self.tensor(np.stack([starts[i].action for i in chosen])))
            task = self.tasks([starts[i] for i in chosen])
            cache = s.cache.fresh(len(chosen), before=int(length))
            prev = previous_state_action(state[:, :-1], action, first)
            for i in range(length):
                step = Step(obs[:, i], prev[:, i], state[:, i], action[:, i], task)
                self.model.prior_and_encode_step(step, cache)
            s.cache.replace(torch.as_tensor(rows[chosen], device=self.device), cache)

    def step(
        self,
        s: RolloutState,
        action: Any,
        noise: Tensor,
        num_steps: int | None = None,
        compiled: bool = False,
    ) -> RolloutState:
        """Imagines one step of all rows; consumes `s` (`s.fork()` first to branch).

        action (B, A) in raw units, inside the recorded range; noise (B, C, H, W) standard normal; num_steps:
        denoising steps (None: the model's own); compiled: see `compiled_step.py`.
        """
        action = self.stats.encode_action(self.tensor(action))
        return self.stepper(s, action, noise.to(self.device), num_steps, compiled)

    def prepare(self, s: RolloutState, num_steps: int | None = None, compiled: bool = False) -> None:
        """Does beforehand what the first step of so many rows would otherwise have to do: compiles, records
        the CUDA graph."""
        self.stepper.prepare(s, num_steps, compiled)

    def outputs(self, s: RolloutState) -> dict[str, np.ndarray]:
        """Gives fresh arrays: pixels uint8 (B, V, H, W, 3); raw state (B, S) and reward (B,); success (B,);
        uncertainty (B,), the state error to expect, NaN where there is no prior to tell it; where there is a
        filter to tell it, image_uncertainty (B,), the pictures' error; and, in a world that finds some by
        sight, objects (B, N), px.

        FloatingPointError where a row imagined what is no number.
        """
        readout = self.readout(s)
        numbers = readout.wait()._asdict()
        if not self.codec.config.found:
            del numbers["objects"]
        if not self.model.tells_image_error:
            del numbers["image_uncertainty"]
        return {"pixels": readout.pixels.cpu().numpy(), **numbers}

    def readout(self, s: RolloutState) -> Readout:
        """Begins to read off what the rows imagined: nothing here waits for the device."""
        packed = self.packed_numbers(s)
        return Readout(self.pixels(s).contiguous(), packed, len(self.schema.state), s.cache.steps)

    def packed_numbers(self, s: RolloutState) -> HostCopy:
        """Sends the numbers that a `Readout` holds on their way to the host."""
        numbers = [
            s.success.float(),
            self.stats.decode_reward(s.reward).float(),
            self.model.prior.expected_error(s.ensemble).float(),
            s.image_error,
            s.obs.flatten(1).sum(1).float(),  # finite where all pixels are
        ]
        state = self.stats.decode_state(s.state).float()
        return HostCopy(torch.cat([torch.stack(numbers, dim=1), state], dim=1))

    def complete(self, starts: Sequence[StartState]) -> list[StartState]:
        """Gives the starts as the model knows them: what is found in their pictures is part of the state, and
        looked for where it is not known. One frame before the first, objects are taken to be there."""
        if not self.codec.config.found:
            return list(starts)
        return [replace(start, **self.state_and_prev(start)) for start in starts]

    def state_and_prev(self, start: StartState) -> dict[str, Any]:
        """Gives state (k, S + N) and prev (S + N + A) of a start with what is found in its pictures."""
        state, prev = (torch.from_numpy(values)[None] for values in (start.state, start.prev))
        known = None if start.found is None else torch.from_numpy(start.found)[None]
        found = self.codec.find(torch.from_numpy(start.pixels)[None]) if known is None else known
        return {name: value[0].numpy() for name, value in with_found(state, prev, found).items()}

    def decode_state(self, state: Tensor) -> Tensor:
        """Gives the recorded part (…, S), raw units, of a model's state."""
        return self.stats.decode_state(state)[..., : len(self.schema.state)]

    def decode_objects(self, state: Tensor) -> Tensor:
        """Gives the rest of it (…, N), px: where what was found by sight is."""
        return self.stats.decode_state(state)[..., len(self.schema.state) :]

    def last_frames(self, starts: Sequence[StartState]) -> Tensor:
        """Gives the last frame that each start state shows, uint8 (r, V, H, W, 3)."""
        return torch.from_numpy(np.stack([start.pixels[-1] for start in starts])).to(self.device)

    def last_states(self, starts: Sequence[StartState]) -> tuple[Tensor, Tensor]:
        """Gives the model's state there (r, S), and state and action one frame earlier (r, S + A), at rest at
        an episode's first."""
        state = self.tensor(np.stack([start.state[-1] for start in starts]))
        prev = self.tensor(np.stack([start.last_prev for start in starts]))
        return self.stats.encode_state(state), self.stats.encode_prev(prev)

    def look_at(self, obs: Tensor, state: Tensor, prev: Tensor) -> Shown:
        """Keeps of frames that are shown what the model asks for later."""
        return self.model.look_at(obs, state, prev)

    def init_ensemble(self, prev: Tensor, state: Tensor) -> Tensor:
        """Gives the members (B, M, 2·S + A) that tell the uncertainty, where they begin."""
        return self.model.prior.init_ensemble(prev, state)

    def empty_cache(self, rows: int) -> RingKVCache:
        """Gives the memory of rows that have seen nothing."""
        return self.model.core.empty_cache(rows, self.device)

    def images(self, s: RolloutState) -> Tensor:
        """Gives what the robot sees, (B, C, H, W) in [-1, 1]."""
        return self.codec.decode(s.obs, s.anchor, s.detail)

    def pixels(self, s: RolloutState) -> Tensor:
        """Gives the same as uint8 (B, V, H, W, 3)."""
        return self.codec.decode_pixels(s.obs, s.anchor, s.detail)

    def keep_detail(self, s: RolloutState, shown: Tensor) -> RolloutState:
        """Keeps of the last frames that were shown, uint8 (B, V, H, W, 3), what their code has lost."""
        return replace(s, detail=self.codec.detail(shown, s.anchor)) if self.config.anchor_frame else s

    def tasks(self, starts: Sequence[StartState]) -> Tensor:
        """Gives (B,) int: which of the schema's tasks each row does."""
        return torch.tensor([start.task for start in starts], device=self.device)

    def tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    # ---- disk ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, weights: str = "float32", beside: Sequence[Path] = ()) -> Path:
        """Writes the folder whole or not at all; an older world there is replaced only by a complete one.

        weights: float32; float16 or int8 for shipping (`weights.as_saved`; loading gives float32 again).
        beside: further files of the folder, such as images of the card.
        ValueError where something else lies there, OSError where the disk does not take it.
        """
        folder = Path(folder)
        one_of("weights", weights, WEIGHTS)
        refuse_foreign(folder, WORLD_FILES, "a world")
        write_folder(folder, lambda made: self.write_files(made, weights, beside))
        return folder

    def write_files(self, folder: Path, weights: str, beside: Sequence[Path]) -> None:
        save_file(as_saved(self.model, weights), folder / "model.safetensors")
        if coded := as_saved(self.codec, weights):
            save_file(coded, folder / CODEC)
        self.stats.to("cpu").save(folder / "stats.safetensors")
        self.starts.save(folder / "starts")
        config = {
            "format": FORMAT,
            "scd_world": scd_world.__version__,
            "torch": torch.__version__,
            "model": self.config.as_saved,
            "prior": self.prior_config.as_saved,
            "codec": asdict(self.codec.config),
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
        """Opens a world: a folder, or a Hugging Face Hub id (`user/name`, or `user/name@revision`, pinned).

        FileNotFoundError where there is none; DamagedFolder, a ValueError, where it is damaged or says of
        itself what cannot be; ValueError where its format is unknown. One of format 3 opens with a warning.
        """
        folder = find_folder(source, revision)
        verify(folder, {*WORLD_FILES, *(f"starts/{name}" for name in names_in(folder / "starts"))})
        config = read_config(folder)
        codec = read_codec(folder / CODEC, config)
        of_model, of_stats = folder / "model.safetensors", folder / "stats.safetensors"
        stats, weights = read_tensors(of_stats), read_tensors(of_model)
        if config.format == format3.FORMAT:
            warnings.warn(
                f"{folder} is a world of format 3: it opens as it is; World.load(…).save(…) writes it anew",
                stacklevel=2,
            )
            stats, fitted = format3.upgrade_stats(stats)
            weights = format3.upgrade_weights(weights) | fitted
            format3.knots_of_line(weights, KNOWN)
        normalizer = make_normalizer(of_stats, stats, config)
        model = make_model(of_model, weights, config, normalizer)
        with blaming(folder / "starts"):
            starts = StartStates.load(folder / "starts")
            starts.check(config.schema, len(config.codec.found))
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        return cls(model, normalizer, starts, card, config.provenance, codec).to(device)

    def push_to_hub(self, repo_id: str, private: bool = True) -> str:
        """Uploads the world's folder; gives its address on the Hub."""
        from huggingface_hub import HfApi

        api = HfApi()
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as parent:
            api.upload_folder(repo_id=repo_id, folder_path=self.save(Path(parent) / "world"))
        return str(url)


def init_from(model: WorldModel, source: str | Path) -> dict[str, Any]:
    """Gives `model` the weights of a world, to go on learning or to adapt it; returns its provenance."""
    world = World.load(source)
    heads, gates = zip(*((m.config.head, m.config.bounded_gate) for m in (world.model, model)), strict=True)
    if heads == ("patch", "patch") and gates[0] != gates[1]:  # weights of equal shapes mean another thing
        theirs, ours = (str(gate).lower() for gate in gates)
        raise ValueError(
            f"the world {source} has model.bounded_gate={theirs} and this model {ours}: set "
            f"model.bounded_gate={theirs} to start from it"
        )
    try:
        model.load_state_dict(world.model.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"the world {source} has other shapes than this model and its data: take its model settings "
            f"(config.json) and data with its cameras, state and action sizes ({error})"
        ) from error
    return world.provenance


def shipped(name: str) -> str:
    """Gives the folder of the world that an environment's id, scd_world/…, is of."""
    try:  # by its name: it is built on this, and a machine that makes no environment may lack what it needs
        ships: dict[str, dict[str, str]] = importlib.import_module("scd_envs").SHIPPED
    except ImportError as error:
        raise FileNotFoundError(f"no world {name!r}: shipped worlds come with scd_envs ({error})") from error
    if (of := name.removeprefix(IDS)) not in ships:
        others = ", ".join(sorted(IDS + each for each in ships))
        raise FileNotFoundError(f"no world {name!r}: the shipped ones are {others}; any other is a folder")
    return ships[of]["world"]


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """Gives the folder of a world: one on this disk, a shipped one by its environment's id, such as
    scd_world/PushT-v0, or the Hub's `user/name`, also as `user/name@revision`.

    A name on a hub can change its content: a pinned revision (a commit) cannot. ValueError where the folder
    is no world, or where two revisions are given; FileNotFoundError where there is none.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            inside = folder / "world"
            hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else ""
            raise ValueError(f"{folder} is not a world: it holds no config.json{hint}")
        if (folder / "world").is_dir() and not (folder / MANIFEST).exists():
            raise ValueError(f"{folder} is the folder of a training; did you mean {folder / 'world'}?")
        return folder
    if str(source).startswith(IDS):
        return find_folder(shipped(str(source)))
    if (before := beside(folder, OLD)).is_dir():
        raise FileNotFoundError(
            f"no world at {folder.absolute()}: it was being replaced when its command was killed. The same "
            f"command brings it back; the one before lies in {before}"
        )
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"no world at {folder.absolute()}: no such folder (and not a Hub id `user/name`)"
        )
    name, _, pinned = str(source).partition("@")
    if pinned and revision not in (None, pinned):
        raise ValueError(f"{source} names the revision {pinned}, and revision={revision} another: give one")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=pinned or revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"no world {str(source)!r}: no such folder here, and the Hugging Face Hub gave none ({error})"
        ) from error
