"""Any policy checkpoint of LeRobot's, with its pre- and postprocessors, as one of our policies.

B episodes. LeRobot keeps one queue of actions for its whole batch, so all episodes begin together and are
stepped in lock step; rows that are over are stepped along, and the rollout drops their actions.
"""

from __future__ import annotations

import json
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
    cameras_of,
    check_fit,
    dataset_keys,
    for_camera,
    policy_shapes,
    resize,
    warn_proportions,
)
from scd_policies.policy import check_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lerobot.configs import PreTrainedConfig


RESIZE_HINT = "resize=True, or for a command 'policy_kwargs={{resize: true}}',"


class LeRobotPolicy:
    """Acts as the checkpoint in folder, or of Hub id, `path`; a lone camera's image goes to its lone camera.

    rename_map: the environment's key → the policy's, as for LeRobot's --rename_map, beside the renames that
    the checkpoint was trained with.
    resize: images of another size than the policy's are resized; without it they are an error.
    views, recorded: the environment's `metadata` of these names: a resized image is cut out of its letterbox
    first, and distorted proportions are warned of. camera_keys: likewise; cameras go by the keys of the data.
    task: in words, for a policy that is conditioned on language. device: "auto" is CUDA where there is one.

    Policies that sample (diffusion) do so from a stream of their own, seeded by all seeds of the batch: the
    same seeds give the same actions, and the global generator stays as it was.

    Raises FileNotFoundError where there is no checkpoint, and ValueError, at the first observation, where it
    does not fit the environment.
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
        camera_keys: Mapping[str, str] | None = None,
    ) -> None:
        from lerobot.envs import preprocess_observation
        from lerobot.policies import get_policy_class, make_pre_post_processors

        config = load_config(path, device)
        self._to_lerobot = preprocess_observation
        self._policy = get_policy_class(config.type).from_pretrained(path, config=config)
        self._preprocess, self._postprocess = make_pre_post_processors(
            config, str(path), preprocessor_overrides={"device_processor": {"device": config.device}}
        )
        self._cuda = [self._policy.config.device] if str(config.device).startswith("cuda") else []
        self._wanted = policy_shapes(config)
        self._action_shape = tuple(action_space.shape or ())
        self._saved_rename, self._given_rename = saved_rename(self._preprocess), dict(rename_map or {})
        self._resize, self._task = resize, task
        self._views, self._recorded, self._camera_keys = views or {}, recorded or {}, camera_keys or {}
        self._rows = 0

    def reset(self, seeds: Sequence[int]) -> None:
        self._rows = len(seeds)
        self._rng = np.random.default_rng([*seeds, 1])  # not the environment's stream of the same seed
        self._checked = False
        self._policy.reset()

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        check_batch(obs, self._rows)
        batch: dict[str, Any] = self._fitted(self._to_lerobot(obs))
        batch["task"] = [self._task] * self._rows
        with torch.inference_mode(), self._own_generator():
            action = self._postprocess(self._policy.select_action(self._preprocess(batch)))
        return action.cpu().numpy()

    def _fitted(self, observed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gives the observation by the policy's names and in its sizes; ValueError where that cannot be."""
        keys = dataset_keys(observed, self._camera_keys)
        given = {keys.get(key, key): name for key, name in self._given_rename.items()}
        rename = self._saved_rename | self._lone_camera(keys) | given
        if self._resize:
            wanted = {key: self._wanted.get(rename.get(name, name), ()) for key, name in keys.items()}
            observed = {key: self._resized(key, value, wanted[key]) for key, value in observed.items()}
        observed = {keys[key]: value for key, value in observed.items()}
        if not self._checked:
            shapes = {key: tuple(value.shape[1:]) for key, value in observed.items()} | {
                ACTION: self._action_shape
            }
            fitting = {key: name for key, name in rename.items() if key in shapes} | given
            check_fit(self._wanted, shapes, fitting, rename_hint, RESIZE_HINT)
            self._checked = True
        return {rename.get(key, key): value for key, value in observed.items()}

    def _resized(self, key: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        if len(shape) != 3 or value.shape[1:] == shape:
            return value
        if not self._checked:
            warn_proportions(key, for_camera(key, self._recorded), shape[1:])
        return resize(value, (shape[1], shape[2]), for_camera(key, self._views))

    def _lone_camera(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Renames the image of an environment with one camera to the policy's, if that has one too."""
        wanted = cameras_of(self._wanted)
        return {keys[IMAGE]: wanted[0]} if IMAGE in keys and len(wanted) == 1 else {}

    @contextmanager
    def _own_generator(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=self._cuda):
            torch.manual_seed(int(self._rng.integers(2**63 - 1)))
            yield


def rename_hint(found: Mapping[str, str]) -> str:
    """Writes a rename as Python, as a command and as a list of policies in YAML take it."""
    kwargs = f"{{rename_map: {{{', '.join(f'{key}: {name}' for key, name in found.items())}}}}}"
    return (
        f"rename_map={json.dumps(found)}, or for a command 'policy_kwargs={kwargs}', or in a list of "
        f"policies policy_kwargs: {kwargs}"
    )


def load_config(path: str | Path, device: str) -> PreTrainedConfig:
    """Reads the checkpoint's configuration, ready to load its weights without downloading others."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from lerobot.configs import PreTrainedConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    folder = Path(path)
    if not folder.is_dir() and (str(path).count("/") != 1 or str(path).startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"no policy at {folder.absolute()}: no such folder (and not a Hub id `user/name`, nor one of "
            "scd_policies.make's names)"
        )
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
    """Gives the renames that the policy was trained with."""
    from lerobot.processor import RenameObservationsProcessorStep

    renames = [s.rename_map for s in preprocessor.steps if isinstance(s, RenameObservationsProcessorStep)]
    return {key: name for rename in renames for key, name in rename.items()}
