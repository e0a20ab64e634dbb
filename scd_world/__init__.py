"""scd_world: a world model that a roboticist can step (Separable Causal Diffusion).

Kept empty of imports on purpose: `import scd_world` costs nothing, and each part is imported by name
(`from scd_world.world import World`).
"""

__version__ = "0.3.0"
