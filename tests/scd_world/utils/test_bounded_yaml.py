"""YAML that is broken, or that a few lines blow up, is refused at once and says why."""

from __future__ import annotations

import pytest

from scd_world.ranking.config import read_policies
from scd_world.utils.bounded_yaml import LARGEST_FILE, check_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BOMB, "more than 100,000 entries"),
        ("a: &a [*a]", r"\*a names nothing that is complete"),
        ("[" * 100 + "]" * 100, "50 levels"),
        ("policies: [a: b: c\n  - }", "no YAML that can be read: .* line 1, column 11"),
        ("a: *nothing", r"\*nothing names nothing"),
        ("#" * (LARGEST_FILE + 1), "bytes, and at most"),
    ],
)
def test_it_is_refused(tmp_path, text, complaint):
    file = tmp_path / "policies.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_policies(str(file))


def test_what_people_write_passes(tmp_path):
    file = tmp_path / "policies.yaml"
    same = "policy_kwargs: &same {speed: 1, list: [1, 2]}"
    file.write_text(
        f"policies:\n  - {{name: a, policy: p, {same}}}\n  - {{name: b, policy: p, policy_kwargs: *same}}"
    )
    check_yaml(file)
    one, other = read_policies(str(file))
    assert one.policy_kwargs == other.policy_kwargs == {"speed": 1, "list": [1, 2]}


def test_a_policy_s_own_keys_have_types():
    other = {"name": "b", "policy": "p"}
    with pytest.raises(ValueError, match=r"policies: a: .*maybe.*not a valid bool.*needs_images"):
        read_policies([{"name": "a", "policy": "p", "needs_images": "maybe"}, other])
    assert (
        read_policies([{"name": "a", "policy": "p", "needs_images": False}, other])[0].needs_images is False
    )
