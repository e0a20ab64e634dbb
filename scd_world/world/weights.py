"""A world's tensors on disk: read, and checked against its config before a model of that size is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scd_world.codec.codec import Codec, make_codec
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.normalizer import Normalizer
from scd_world.utils.atomic_folder import DamagedFolder, blaming
from scd_world.world.build_model import build_model
from scd_world.world.format3 import only
from scd_world.world.world_config import WorldConfig, fewest_weights

CODEC = "codec.safetensors"  # in a world whose codec is learnt
WEIGHTS = ("float32", "float16", "int8")  # in how many bits parameters are saved
LOOK_AT_FRAMES = ("scene_encoder", "static_layer", "motion.layers")  # of a renderer
OF_FRAMES = ("core.", *(f"prior.renderer.{part}." for part in LOOK_AT_FRAMES))  # what is kept in int8
ROW_SCALES = ".row_scales"  # behind the name of a matrix that is saved in 8 bits
MAY_BE_NAN = "prior.uncertainty.calibration_curve"  # where no state says what to expect


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Reads a file of tensors as float32; DamagedFolder where they are none, or no real numbers.

    A matrix of int8 has a scale for each of its rows beside it.
    """
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DamagedFolder(f"{file} cannot be read: {error}") from error
    for name in [name for name in tensors if name.removesuffix(ROW_SCALES) != name]:
        scales, matrix = tensors.pop(name), name.removesuffix(ROW_SCALES)
        if matrix not in tensors or scales.shape != tensors[matrix].shape[:1]:
            raise DamagedFolder(f"{file}: {name} fits no matrix {matrix}")
        tensors[matrix] = tensors[matrix].float() * scales.view(-1, *[1] * (tensors[matrix].ndim - 1))
    if wrong := [
        f"{name} ({value.dtype})" for name, value in tensors.items() if not value.is_floating_point()
    ]:
        raise DamagedFolder(f"{file} holds what are no real numbers, in {', '.join(wrong[:5])}")
    return {name: value.float() for name, value in tensors.items()}


def as_saved(module: nn.Module, weights: str) -> dict[str, Tensor]:
    """Gives a module's tensors, with its parameters in fewer bits where `weights` is not float32.

    float16: rounded. int8: of what denoises and encodes frames each row of a matrix in whole numbers up to
    127 times a scale of its own, all else in float16. Buffers are fits in closed form, and stay exact.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    if weights == "float32":
        return tensors
    for name, _ in module.named_parameters():
        value = tensors[name]
        if weights == "int8" and value.ndim > 1 and value.numel() and name.startswith(OF_FRAMES):
            scales = value.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            rows = scales.view(-1, *[1] * (value.ndim - 1))
            tensors[name], tensors[name + ROW_SCALES] = (value / rows).round().to(torch.int8), scales
        else:
            tensors[name] = value.half()
    return tensors


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises DamagedFolder where a number is not finite: such a world would step with NaN for ever."""
    wrong = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if wrong and wrong != [MAY_BE_NAN]:
        raise DamagedFolder(
            f"{file} holds numbers that are not finite, in {', '.join(wrong[:5])}: its training came to "
            "grief; go back to an earlier checkpoint, or train it again"
        )


def make_normalizer(file: Path, stats: Mapping[str, Tensor], config: WorldConfig) -> Normalizer:
    """Makes the statistics that were read from `file`; DamagedFolder where they are not the schema's."""
    check_finite(file, stats)
    with blaming(file):
        return Normalizer.of_schema(stats, config.model_schema)


def read_codec(file: Path, config: WorldConfig) -> Codec:
    """Reads the config's codec, to be used as it is; DamagedFolder where `file` does not hold its weights."""
    with blaming(file.with_name("config.json")):
        codec = make_codec(config.codec, config.schema)
    if codec.state_dict():
        weights = read_tensors(file)
        check_finite(file, weights)
        load_weights(file, codec, weights, "codec")
    return codec.eval().requires_grad_(False)


def make_model(
    file: Path, weights: Mapping[str, Tensor], config: WorldConfig, normalizer: Normalizer
) -> WorldModel:
    """Builds the config's model with the weights that were read from `file`, to be stepped.

    Raises DamagedFolder where they are another model's, before one much larger than the file is built.
    """
    check_finite(file, weights)
    needed, there = fewest_weights(config), sum(value.numel() for value in weights.values())
    if needed > there:
        raise DamagedFolder(
            f"{file} holds {there:,} weights, and the model of config.json has {needed:,} or more: one of "
            "the two is of another world"
        )
    with blaming(file.with_name("config.json")):
        model = build_model(config.model, config.prior, config.model_schema, normalizer)
    if config.model.architecture == "copy_last":  # it had a prior once, and never asked it
        weights = model.state_dict() | only(model.state_dict(), weights)
    load_weights(file, model, weights, "model")
    return model.eval().requires_grad_(False)


def load_weights(file: Path, module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Gives a module the weights that were read from `file`; DamagedFolder where they are another one's."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise DamagedFolder(
            f"{file} holds the weights of another {what} than its config.json: {error}"
        ) from error
