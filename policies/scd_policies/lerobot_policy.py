"""Any policy checkpoint of LeRobot's, with its pre- and postprocessors, as one of our policies.

B episodes. LeRobot keeps one queue of actions for its whole batch, so all episodes begin together and are
stepped in lock step; rows that are over are stepped along, and what they do is dropped by the rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from scd_policies.lerobot_compat import (
    ACTION,
    IMAGE,
    check_fit,
    for_camera,
    policy_shapes,
    resize,
    warn_proportions,
)
from scd_policies.policy import check_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lerobot.configs import PreTrainedConfig


SAY_RENAME = "rename_map={}, or for a command 'policy_kwargs={{rename_map:{}}}'"
SAY_RESIZE = "resize=True, or for a command 'policy_kwargs={{resize:true}}',"


class LeRobotPolicy:
    """The policy in the folder, or of the hub id, `path`; a lone camera's picture goes to its lone camera.

    rename_map: the environment's key → the policy's, as for LeRobot's --rename_map, beside the renames that
    the checkpoint was trained with.
    resize: pictures of another size than the policy's are resized; without it they are an error.
    views, recorded: the environment's `metadata` of these names, by which a resized picture is cut out of a
    letterbox first, and other proportions than the camera's own are warned of.
    task: what a policy that reads language is told. device: "auto" is CUDA where there is one.

    Policies that draw at random (diffusion) do so from a stream of their own, seeded by all seeds of the
    batch: the same seeds give the same actions, and the global generator stays as it was.
    """

    def __init__(
        self,
        action_space: gymnasium.Space,
        path: str | Path,
        device: str = "auto",
        rename_map: Mapping[str, str] | None = None,
        resize: bool = False,
        task: str = "",
        views: Mapping[str, Sequence[int]] | None = None,
        recorded: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        from lerobot.envs import preprocess_observation
        from lerobot.policies import get_policy_class, make_pre_post_processors

        config = load_config(path, device)
        self._observed = preprocess_observation
        self._policy = get_policy_class(config.type).from_pretrained(path, config=config)
        self._before, self._after = make_pre_post_processors(
            config, str(path), preprocessor_overrides={"device_processor": {"device": config.device}}
        )
        self._cuda = [self._policy.config.device] if str(config.device).startswith("cuda") else []
        self._wants = policy_shapes(config)
        self._takes = tuple(action_space.shape or ())
        self._saved_rename, self._given_rename = saved_rename(self._before), dict(rename_map or {})
        self._resize, self._task = resize, task
        self._views, self._recorded = views or {}, recorded or {}
        self._rows = 0

    def reset(self, seeds: Sequence[int]) -> None:
        self._rows = len(seeds)
        self._draws = np.random.default_rng([*seeds, 1])  # not the environment's stream of the same seed
        self._checked = False
        self._policy.reset()

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        check_batch(obs, self._rows)
        batch: dict[str, Any] = self._fitted(self._observed(obs))
        batch["task"] = [self._task] * self._rows
        with torch.inference_mode(), self._own_draws():
            action = self._after(self._policy.select_action(self._before(batch)))
        return action.cpu().numpy()

    def _fitted(self, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """The observation by the policy's names and in its sizes; ValueError where that cannot be."""
        rename = self._saved_rename | self._lone_camera(seen) | self._given_rename
        if self._resize:
            wanted = {key: self._wants.get(rename.get(key, key), ()) for key in seen}
            seen = {key: self._resized(key, value, wanted[key]) for key, value in seen.items()}
        if not self._checked:
            shapes = {key: tuple(value.shape[1:]) for key, value in seen.items()} | {ACTION: self._takes}
            apt = {key: name for key, name in rename.items() if key in shapes} | self._given_rename
            check_fit(self._wants, shapes, apt, SAY_RENAME, SAY_RESIZE)
            self._checked = True
        return {rename.get(key, key): value for key, value in seen.items()}

    def _resized(self, key: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        if len(shape) != 3 or value.shape[1:] == shape:
            return value
        if not self._checked:
            warn_proportions(key, for_camera(key, self._recorded), shape[1:])
        return resize(value, (shape[1], shape[2]), for_camera(key, self._views))

    def _lone_camera(self, seen: dict[str, Tensor]) -> dict[str, str]:
        """An environment with one camera does not say its name: it is the policy's, if that has one too."""
        wanted = [key for key in self._wants if key.startswith(IMAGE)]
        return {IMAGE: wanted[0]} if IMAGE in seen and len(wanted) == 1 else {}

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=self._cuda):
            torch.manual_seed(int(self._draws.integers(2**63 - 1)))
            yield


def load_config(path: str | Path, device: str) -> PreTrainedConfig:
    """The checkpoint's configuration, ready to load its weights without asking the network for others."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from lerobot.configs import PreTrainedConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    folder = Path(path)
    if not folder.is_dir() and (str(path).count("/") != 1 or str(path).startswith((".", "/", "~"))):
        raise FileNotFoundError(f"no policy at {folder.absolute()}: no such folder (and not a Hub id)")
    if folder.is_dir() and not (folder / "config.json").is_file():
        inside = [file.parent for file in sorted(folder.rglob("pretrained_model/config.json"))]
        hint = f"; did you mean {inside[-1]}?" if inside else ""
        raise ValueError(f"{folder} is not a policy of LeRobot's: it holds no config.json{hint}")
    register_third_party_plugins()  # policies may come from distributions of their own
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        config = PreTrainedConfig.from_pretrained(path, cli_overrides=[f"--device={device}"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"no policy {str(path)!r}: no such folder here, and the Hugging Face Hub gave none ({error})"
        ) from error
    if config.use_peft:
        raise ValueError(f"{path} is a PEFT adapter: merge it into its policy and save that")
    if "pretrained_backbone_weights" in {field.name for field in fields(config)}:
        config.pretrained_backbone_weights = None  # the checkpoint holds them; LeRobot would download
    return config


def saved_rename(preprocessor: Any) -> dict[str, str]:
    """The renames that the policy was trained with."""
    from lerobot.processor import RenameObservationsProcessorStep

    renames = [s.rename_map for s in preprocessor.steps if isinstance(s, RenameObservationsProcessorStep)]
    return {key: name for rename in renames for key, name in rename.items()}
