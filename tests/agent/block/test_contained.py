"""The rules in other network namespaces than the host's: put in, looked at, put back."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.block import cgroups, nft
from agent.block.contained import Contained
from agent.block.ruleset import Ruleset
from agent.network.netns import Namespace
from probes.links import PlatformError

pytestmark = pytest.mark.kernel
NAME = f"wt{os.getpid()}"


@pytest.fixture
def there() -> Iterator[tuple[Contained, Namespace]]:
    slice_ = cgroups.find_slice(NAME)
    slice_.path.mkdir()
    rules = Ruleset(NAME, slice_.nft_path, slice_.level, 15432, ("127.53.53.53", 53), redirect=False)

    def same(text: str, path: str) -> bool:
        mine = {rules.path: slice_.path, rules.root: slice_.root}[path]
        return Path(cgroups.NFT_BASE / text) == mine or (text.isdigit() and int(text) == cgroups.cgroup_id(mine))

    contained = Contained(rules, same, lambda: cgroups.cgroup_id(slice_.path))
    namespace = Namespace.make()
    try:
        contained.add(namespace, "crew, owner 7")
        yield contained, namespace
    finally:
        namespace.close()
        slice_.path.rmdir()


def test_the_table_redirects_in_any_case(there: tuple[Contained, Namespace]) -> None:
    contained, namespace = there
    assert "redirect to :15432" in namespace.call(lambda: nft.list_table(NAME))
    assert contained.problems() == []
    assert nft.list_table(NAME) == "", "here there is none"


def test_what_is_taken_away_is_seen_and_put_back(there: tuple[Contained, Namespace]) -> None:
    contained, namespace = there
    assert contained.problems() == []
    namespace.call(lambda: nft.delete_table(NAME))
    assert contained.problems() == [f"nftables: table inet {NAME} is not there (in the network of crew, owner 7)"]
    contained.repair()
    assert contained.problems() == []
    namespace.call(lambda: nft._command(f"flush chain inet {NAME} crew_output"))
    assert any("lacks" in one for one in contained.problems())


def test_what_is_whole_is_listed_once(there: tuple[Contained, Namespace], monkeypatch: pytest.MonkeyPatch) -> None:
    contained, namespace = there
    contained.problems()
    listed: list[str] = []
    before = nft.list_table
    monkeypatch.setattr(nft, "list_table", lambda name: (listed.append(name), before(name))[1])
    contained.problems()
    assert listed == []
    namespace.call(lambda: nft._command("table inet others"))
    contained.problems()
    contained.problems()
    assert listed == [NAME]


def test_others_who_change_packets_there(there: tuple[Contained, Namespace]) -> None:
    contained, namespace = there
    namespace.call(lambda: nft._command(
        "table ip t {\nchain c {\ntype filter hook output priority 9\nip daddr set 10.0.0.1\n}\n}"))
    [found] = contained.mangling()
    assert "changes packets after Weir's check" in found
    assert found.endswith("(in the network of crew, owner 7)")


def test_a_namespace_that_was_given_up(there: tuple[Contained, Namespace]) -> None:
    contained, namespace = there
    contained.remove(namespace.cookie)
    namespace.close()
    assert contained.problems() == []
    assert contained.look(namespace.cookie, lambda: [1]) == []


def test_one_that_cannot_be_looked_at_is_said(there: tuple[Contained, Namespace]) -> None:
    contained, namespace = there
    namespace.close()
    [found] = contained.problems()
    assert found.startswith("nftables: the rules could not be looked at")


def test_their_number_is_bounded(there: tuple[Contained, Namespace], monkeypatch: pytest.MonkeyPatch) -> None:
    contained, namespace = there
    with pytest.raises(PlatformError, match="contained already"):
        contained.add(namespace, "again")
    monkeypatch.setattr("agent.block.contained.MOST", 1)
    other = Namespace.make()
    with pytest.raises(PlatformError, match="1 networks are contained, and no more can be"):
        contained.add(other, "crew, owner 8")
    other.close()
    assert contained.cookies() == (namespace.cookie,)
