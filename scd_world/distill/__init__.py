"""Worlds that render in 1, 2 or 4 steps: a trained world is its own teacher, and a copy of it the student.

`consistency.py` and `meanflow.py` teach the decoder to take large steps, the context fixed; `rollout.py`
teaches the whole model on frames of its own. `distill.py` runs them with `scd-train`'s trainer, `steps.py`
measures quality against denoising steps.
"""
