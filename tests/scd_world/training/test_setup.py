"""What a training starts with."""

from types import SimpleNamespace

import numpy as np

from scd_world.training.setup import filter_clip


def test_episodes_that_end_with_what_is_shown_measure_no_filter():
    pretraining = SimpleNamespace(
        config=SimpleNamespace(eval_context=4),
        store=SimpleNamespace(lengths=np.array([4, 4, 4, 30])),
        apart=np.array([0, 1, 2]),
    )
    assert filter_clip(pretraining, None) is None
