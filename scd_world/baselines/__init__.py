"""SCD's baselines: other cores of the same blocks, heads and data, in the same world model."""
