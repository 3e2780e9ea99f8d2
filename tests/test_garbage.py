"""A node that drives is not held up by Python's collector."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from vla_policy_node.ros_node import settle_garbage


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_goes_and_what_is_left_is_not_looked_at_again() -> None:
    garbage, kept = weakref.ref(Ring()), Ring()
    settle_garbage()
    assert garbage() is None
    assert not any(one is kept for one in gc.get_objects())
    later = weakref.ref(Ring())
    gc.collect()
    assert later() is None, "what is made later is collected as ever"


LOOKED_AT = """
import gc
import vla_policy_node.network_policy, vla_policy_node.policy_node
from vla_policy_node.ros_node import settle_garbage
before = len(gc.get_objects())
settle_garbage()
print(before, len(gc.get_objects()))
"""


def test_a_policy_nodes_collector_looks_at_a_hundredth_of_what_it_did() -> None:
    said = subprocess.run([sys.executable, "-c", LOOKED_AT], capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split()[-2:])
    assert before > 100_000
    assert after < before / 100
