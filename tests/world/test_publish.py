"""A world to ship says how good it is, and is half the size."""

from __future__ import annotations

import torch

from scd_world.publish import package
from scd_world.world import World


def test_a_packaged_world_is_half_the_size_and_carries_its_report(world, tmp_path):
    full = world.save(tmp_path / "world")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/report.md").write_text("# Fidelity of it\n\n| step | PSNR |\n")
    small = package(full, tmp_path / "evaluation", tmp_path / "shipped")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (small, full)]
    assert sizes[0] < 0.6 * sizes[1]
    shipped = World.load(small)
    assert shipped.card == "# tiny\n\n## Fidelity of it\n\n| step | PSNR |\n"
    for name, weight in world.model.state_dict().items():
        torch.testing.assert_close(shipped.model.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
