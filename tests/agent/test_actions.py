"""What a start is given, where many others have it already."""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from agent.actions import Launches
from agent.networks import MOST


def test_a_user_with_most_of_the_networks_leaves_the_last_to_others() -> None:
    users = dict.fromkeys(range(MOST - 10), 1001)
    agent: Any = SimpleNamespace(
        networks=SimpleNamespace(owners=(*users, 9999)),      # one that has ended just now
        owners=SimpleNamespace(find=lambda owner: SimpleNamespace(uid=users[owner]) if owner in users else None))
    assert f"{MOST - 10} of this user's" in Launches(agent)._full(1001)
    assert Launches(agent)._full(1002) == ""
