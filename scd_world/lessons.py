"""What was taught before the first update, kept as each lesson ends, until the first checkpoint holds it all.

Body and sketch may take most of a training's time: a run that is killed after them does not teach them again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from scd_world.manifest import DamagedFolder, verify, write_folder

log = logging.getLogger(__name__)


class Lessons:
    def __init__(self, folder: Path, circumstances: Mapping[str, Any]) -> None:
        """circumstances (plain JSON): all that a lesson's outcome depends on; what was learnt otherwise is
        not taken."""
        self.folder, self.circumstances = folder, json.loads(json.dumps(circumstances))

    def recall(self, name: str, taught: nn.Module) -> float | None:
        """Seconds that this lesson took, with its weights in `taught`; None where it must be given."""
        target = self.folder / name
        if not target.is_dir():
            return None
        try:
            verify(target)
        except DamagedFolder as error:
            log.warning("%s; the lesson is given again", error)
            return None
        kept = json.loads((target / "lesson.json").read_text())
        if kept["circumstances"] != self.circumstances:
            return None
        taught.load_state_dict(load_file(target / "weights.safetensors"))
        return kept["seconds"]

    def keep(self, name: str, taught: nn.Module, seconds: float) -> None:
        def write(folder: Path) -> None:
            save_file(
                {k: v.contiguous() for k, v in taught.state_dict().items()}, folder / "weights.safetensors"
            )
            kept = {"circumstances": self.circumstances, "seconds": seconds}
            (folder / "lesson.json").write_text(json.dumps(kept, indent=1))

        write_folder(self.folder / name, write)

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
