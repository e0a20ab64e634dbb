"""scd_world: a world model that a roboticist can step (Separable Causal Diffusion).

Kept empty of heavy imports on purpose: `import scd_world` costs nothing, and each part is imported by name
(`from scd_world.world import World`).
"""

import os

# A step is hundreds of small parallel loops. On a busy machine, threads that spin while they wait keep
# the core from the very thread that they wait for: sleeping ones step two to six times as fast there, for
# up to a sixth of the time on an idle one (docs/bench.md). Read as torch is first imported; whoever has set
# it keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.3.0"
