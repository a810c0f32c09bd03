"""What a command keeps of its caller, from the kernel's texts."""
from __future__ import annotations

import resource

import pytest

from agent.workload.sandbox import lower, parse_limits

ENDLESS = resource.RLIM_INFINITY
TEXT = """\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max stack size            8388608              unlimited            bytes     
Max open files            1024                 4096                 files     
Max file locks            unlimited            unlimited            locks     
Max nice priority         0                    0                    
"""  # noqa: W291


def test_limits() -> None:
    assert dict(parse_limits(TEXT)) == {
        resource.RLIMIT_CPU: (ENDLESS, ENDLESS), resource.RLIMIT_STACK: (8388608, ENDLESS),
        resource.RLIMIT_NOFILE: (1024, 4096), resource.RLIMIT_NICE: (0, 0)}
    assert parse_limits("") == ()
    with pytest.raises(ValueError):
        parse_limits(TEXT.replace("4096", "many"))


def test_this_kernel_writes_every_one_as_it_is() -> None:
    with open("/proc/self/limits") as file:
        found = dict(parse_limits(file.read()))
    assert len(found) == 15
    assert found == {number: resource.getrlimit(number) for number in found}


@pytest.mark.parametrize(("bounds", "most", "wanted"), [
    ((10, 20), 30, (10, 20)), ((10, 40), 30, (10, 30)), ((40, 50), 30, (30, 30)), ((10, ENDLESS), 30, (10, 30)),
    ((ENDLESS, ENDLESS), 30, (30, 30)), ((10, 20), ENDLESS, (10, 20)),
    ((10, ENDLESS), ENDLESS, (10, ENDLESS)), ((10, 20), 0, (0, 0)),
])
def test_lower(bounds: tuple[int, int], most: int, wanted: tuple[int, int]) -> None:
    assert lower(bounds, most) == wanted
