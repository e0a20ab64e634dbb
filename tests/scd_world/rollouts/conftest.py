"""The counting environment of the datasets' tests, to be recorded."""

from tests.scd_datasets.conftest import at_step, config, recorded, recorded_once

__all__ = ["at_step", "config", "recorded", "recorded_once"]
