"""`make demo`: a world beside the real simulator, one beside a real robot, and one that is being trained."""

from __future__ import annotations

import time
from typing import Any

from scd_world.demo.config import DemoConfig
from scd_world.demo.g1 import show_g1
from scd_world.demo.pendulum import show_pendulum
from scd_world.demo.pusht import show_pusht
from scd_world.reporting.tables import write_json
from scd_world.utils.devices import machine_info, pick_device
from scd_world.utils.output_folder import claimed_folder


def demo(config: DemoConfig) -> dict[str, Any]:
    """Runs all parts; prints, writes and gives back the figures, and lists in the end what was written."""
    began, device = time.monotonic(), pick_device(config.device)
    report: dict[str, Any] = {"machine": machine_info(device)}
    written: dict[str, str] = {}
    shows = {
        "pusht": (config.pusht, show_pusht),
        "g1": (config.g1, show_g1),
        "pendulum": (config.pendulum, show_pendulum),
    }
    with claimed_folder(config.out, "scd-demo", ("report.json", ("machine", "seconds"))) as out:
        for name, (wanted, show) in shows.items():
            if wanted:
                report[name], files = show(config, out, device.type)
                written |= files
    report["seconds"] = time.monotonic() - began
    write_json(out / "report.json", report)
    written["report.json"] = "all figures, at every step"
    width = max(map(len, written))
    print(f"\nDone in {report['seconds'] / 60:.1f} minutes. In {out} lie:")
    print("\n".join(f"  {name:<{width}}  {what}" for name, what in written.items()))
    return report
