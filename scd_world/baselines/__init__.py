"""SCD's rivals: other models of the same blocks, body, heads and data, behind the same four verbs."""
