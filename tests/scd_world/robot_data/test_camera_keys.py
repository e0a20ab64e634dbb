"""A camera's short name and its key: whatever a dataset called it comes back."""

import json
from dataclasses import replace

import pytest

from scd_world.robot_data.camera_keys import short_names, usual_keys
from scd_world.robot_data.schema import DataSchema

BOTH = ["observation.image", "observation.images.image"]  # of one short name


@pytest.mark.parametrize(
    ("keys", "names", "usual"),
    [
        (["observation.image"], ["image"], True),
        (["observation.images.top"], ["top"], True),
        (["observation.images.image", "observation.images.image2"], ["image", "image2"], True),  # LIBERO's
        (["observation.images.image"], ["image"], False),  # and one of them alone
        (["observation.image", "observation.images.wrist"], ["image", "wrist"], False),
        (BOTH, BOTH, False),
        (["camera_front"], ["camera_front"], False),
    ],
)
def test_no_camera_is_lost_and_its_key_is_kept_where_it_is_not_the_usual_one(schema, keys, names, usual):
    found = short_names(keys)
    assert list(found) == names
    assert (list(usual_keys(names).values()) == keys) is usual
    kept = replace(schema, cameras=tuple(names), camera_keys=() if usual else tuple(keys))
    assert list(kept.lerobot_keys.values()) == keys
    assert DataSchema.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
    assert ("camera_keys" in kept.to_dict()) is not usual


@pytest.mark.parametrize("keys", [("a",), ("a", "a"), ("a", "b", "c")])
def test_each_camera_has_one_key(schema, keys):
    with pytest.raises(ValueError, match="a key of its own for each camera"):
        replace(schema, camera_keys=keys)
