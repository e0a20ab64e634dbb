"""A world's config.json: read and checked whole before anything of its size is allocated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import scd_world
from scd_world.codec.config import CodecConfig, model_schema
from scd_world.model.config import ModelConfig, of_file
from scd_world.prior.config import PriorConfig
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.atomic_folder import blaming, read_object
from scd_world.world import format3

FORMAT = 4
MOST_PARENTS = 100


@dataclass(frozen=True)
class WorldConfig:
    """Holds what a config.json says, in the words of format 4."""

    format: int  # 3 or 4
    model: ModelConfig
    prior: PriorConfig
    codec: CodecConfig
    schema: DataSchema  # of what goes in and out
    provenance: dict[str, Any]  # free JSON

    @property
    def model_schema(self) -> DataSchema:
        """The schema of what the model sees: of its codec's frames."""
        return model_schema(self.codec, self.schema)


def read_config(folder: Path) -> WorldConfig:
    """Reads a world's config.json, and nothing else of the world.

    Raises ValueError for an unknown format, and DamagedFolder with field, value and bounds for what no world
    has.
    """
    file = folder / "config.json"
    values = read_object(file)
    if values.get("format") not in (format3.FORMAT, FORMAT):
        raise ValueError(
            f"{folder} is a world of format {values.get('format')!r:.80}; scd_world {scd_world.__version__} "
            f"reads formats {format3.FORMAT} and {FORMAT}: train it again (the recordings still fit), or "
            f"install the version that wrote it, {values.get('scd_world')!r:.80}"
        )
    with blaming(file):
        old = values["format"] == format3.FORMAT
        for name in ("model", "schema", "provenance") if old else ("model", "prior", "schema", "provenance"):
            check_object(name, values.get(name))
        check_parents(values["provenance"], "init_provenance" if old else "parent")
        if old:
            values = format3.upgrade_config(values)
        return WorldConfig(
            values["format"],
            read_settings(ModelConfig, of_file(values["model"])),
            read_settings(PriorConfig, values["prior"]),
            read_settings(CodecConfig, values.get("codec", {})),  # worlds without one draw pixels
            DataSchema.from_dict(values["schema"]),
            values["provenance"],
        )


def check_object(name: str, value: Any) -> None:
    if value is None:
        raise ValueError(f"{name} is missing")
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r:.80}: expected an object")


def check_parents(made: Mapping[str, Any], parent: str) -> None:
    """Raises ValueError unless what a world was made from is, all the way back, an object or nothing."""
    for _ in range(MOST_PARENTS):
        if (made := made.get(parent) or {}) == {}:
            return
        check_object(f"provenance.{parent}", made)
    raise ValueError(f"provenance names more than {MOST_PARENTS} worlds, each the {parent} of the one before")


def parent_trainings(provenance: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lists the provenances of the worlds whose weights this one started from (`init=`), nearest first."""
    while (parent := provenance.get("parent")) is not None:
        yield parent
        provenance = parent


def read_settings[C](cls: type[C], values: dict[str, Any]) -> C:
    """Gives the settings in a world's config.json; ValueError where it has some that are not known."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := set(values) - known:
        raise ValueError(f"unknown settings {sorted(unknown)}; known are {sorted(known)}")
    return cls(**values)


def fewest_weights(config: WorldConfig) -> int:
    """Counts the numbers in the large matrices of the model that these settings mean, a little less than all.

    Each setting may be within its bounds, and what they ask for together still fill a machine's memory.
    """
    model, prior, schema = config.model, config.prior, config.model_schema
    if model.architecture == "copy_last":
        return 0
    D, p = model.width, model.patch
    blocks = (model.encoder_layers + model.decoder_layers) * 18 * D**2  # attention 4, network 8, modulation 6
    tokens = schema.channels // 3 * (schema.height // p) * (schema.width // p)
    embedders = (4 * D + tokens + 3 * p**2) * D  # of state and action, of each token's place, of a patch
    learns = prior.kind == "state" and schema.state
    layers = max(1, prior.layers - 1) + len(prior.objects) * prior.layers  # outcomes, and each object
    dynamics = layers * 4 * prior.width**2 if learns and prior.layers else 0
    conv = model.conv_channels * (9 * model.conv_channels + D * (p // 2) ** 2) if model.head == "conv" else 0
    return blocks + embedders + dynamics + conv
