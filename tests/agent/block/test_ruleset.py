from __future__ import annotations

import re

import pytest

from agent.block.ruleset import Ruleset, differences, render_table

PLAIN = Ruleset("weir", "unified/weir.slice", 1, 15432, ("192.0.2.53", 53), False)
WITH_REDIRECT = Ruleset("weir", "unified/weir.slice", 1, 15432, ("2001:db8::53", 5353), True)
WITHOUT_DNS = Ruleset("weir", "weir.slice", 1, 15432, None, False)


JOINED = Ruleset("weir", "weir.slice", 1, 15432, None, True, (("system.slice/a-b@1.service", 2),))


def same(text: str, path: str) -> bool:
    return text == path or (text, path) in (
        ("4711", "unified/weir.slice"), ("1", "unified"), ("4712", "system.slice/a-b@1.service"))


def test_the_table() -> None:
    assert render_table(PLAIN) == """\
table inet weir {
\tchain filter_output {
\t\ttype filter hook output priority 0; policy accept;
\t\tsocket cgroupv2 level 1 "unified/weir.slice" jump crew_output
\t\tip daddr 192.0.2.53 tcp dport 53 tcp flags syn / syn,ack limit rate over 100/second burst 200 packets drop
\t\tip daddr 192.0.2.53 udp dport 53 limit rate over 100/second burst 200 packets drop
\t}
\tchain crew_output {
\t\tfib saddr type != local counter drop
\t\tip daddr 127.0.0.1 tcp dport 15432 accept
\t\tip6 daddr ::1 tcp dport 15432 accept
\t\tip daddr 192.0.2.53 tcp dport 53 accept
\t\tip daddr 192.0.2.53 udp dport 53 accept
\t\tmeta mark & 0xffff0000 == 0x57650000 ip daddr 127.0.0.0/8 meta l4proto tcp accept
\t\tmeta mark & 0xffff0000 == 0x57650000 ip6 daddr ::1 meta l4proto tcp accept
\t\tip saddr 127.0.0.0/8 ip daddr 127.0.0.0/8 tcp flags != syn / syn,ack accept
\t\tip6 saddr ::1 ip6 daddr ::1 tcp flags != syn / syn,ack accept
\t\tcounter drop
\t}
\tchain wire {
\t\ttype filter hook postrouting priority 300; policy accept;
\t\toif != "lo" ip daddr 127.0.0.0/8 counter drop
\t\toif != "lo" ip6 daddr ::1 counter drop
\t\toif != "lo" ip saddr 127.0.0.0/8 counter drop
\t\toif != "lo" ip6 saddr ::1 counter drop
\t}
\tchain filter_input {
\t\ttype filter hook input priority 0; policy accept;
\t\tsocket cgroupv2 level 1 "unified/weir.slice" jump crew_input
\t\tmeta mark & 0xffff0000 == 0x57650000 tcp flags syn / syn,ack socket cgroupv2 level 0 "unified" counter drop
\t}
\tchain crew_input {
\t\tmeta mark & 0xffff0000 == 0x57650000 ip saddr 127.0.0.0/8 meta l4proto tcp accept
\t\tmeta mark & 0xffff0000 == 0x57650000 ip6 saddr ::1 meta l4proto tcp accept
\t\ttcp flags syn / syn,ack counter drop
\t\tip saddr 127.0.0.1 tcp sport 15432 accept
\t\tip6 saddr ::1 tcp sport 15432 accept
\t\tip saddr 192.0.2.53 tcp sport 53 accept
\t\tip saddr 192.0.2.53 udp sport 53 accept
\t\tip saddr 127.0.0.0/8 ip daddr 127.0.0.0/8 tcp flags != syn / syn,ack accept
\t\tip6 saddr ::1 ip6 daddr ::1 tcp flags != syn / syn,ack accept
\t\tcounter drop
\t}
}
"""


def test_without_redirect_nothing_tracks_connections() -> None:
    assert " ct " not in render_table(PLAIN)
    assert "nat" not in render_table(PLAIN)


def test_redirect_spares_listener_and_resolver() -> None:
    chain = render_table(WITH_REDIRECT).split("chain crew_nat {")[1].split("}")[0]
    assert [line.strip() for line in chain.strip().splitlines()] == [
        "ip daddr 127.0.0.1 tcp dport 15432 accept", "ip6 daddr ::1 tcp dport 15432 accept",
        "ip6 daddr 2001:db8::53 tcp dport 5353 accept",
        "meta mark & 0xffff0000 == 0x57650000 ip daddr 127.0.0.0/8 meta l4proto tcp accept",
        "meta mark & 0xffff0000 == 0x57650000 ip6 daddr ::1 meta l4proto tcp accept",
        "meta l4proto tcp counter redirect to :15432"]


def test_without_resolver_no_udp_at_all() -> None:
    assert "udp" not in render_table(WITHOUT_DNS)


@pytest.mark.parametrize("rules", [PLAIN, WITH_REDIRECT, WITHOUT_DNS])
def test_every_chain_of_crews_ends(rules: Ruleset) -> None:
    for chain in render_table(rules).split("chain crew_")[1:]:
        last = chain.split("}")[0].strip().splitlines()[-1].strip()
        assert last in ("counter drop", "meta l4proto tcp counter redirect to :15432")


@pytest.mark.parametrize("rules", [PLAIN, WITH_REDIRECT])
def test_its_own_listing_is_the_same(rules: Ruleset) -> None:
    assert differences(render_table(rules), rules, same) == []
    assert differences(render_table(rules).replace('"unified/weir.slice"', "4711"), rules, same) == []
    assert differences(render_table(rules).replace('"unified"', "1"), rules, same) == []
    short = render_table(rules).replace("mark & 0xffff0000 == 0x57650000", "mark 0x57650000/16")
    assert short != render_table(rules)
    assert differences(short, rules, same) == [], "as nft 1.0.6 lists it"
    long = re.sub(r"flags (?:(!=) )?syn / syn,ack", lambda found: f"flags & (syn | ack) {found[1] or '=='} syn",
                  render_table(rules))
    assert long.count("flags & (syn | ack) == syn") >= 2
    assert long.count("flags & (syn | ack) != syn") == 4
    assert "syn / syn,ack" not in long
    assert differences(long, rules, same) == [], "as nft 1.1.3 lists it"
    assert differences(long.replace("!= syn accept", "== syn accept", 1), rules, same)


def test_differences_are_told() -> None:
    text = render_table(PLAIN)
    assert differences("", PLAIN, same) == ["nftables: table inet weir is not there"]
    assert "lacks 'counter drop'" in differences(text.replace("\t\tcounter drop", "\t\tcounter accept"), PLAIN, same)[0]
    assert "another cgroup (815)" in differences(text.replace('"unified/weir.slice"', "815"), PLAIN, same)[0]
    assert differences(text.replace("level 1", "level 2"), PLAIN, same)
    assert differences(text.replace('level 1 "unified/weir.slice"', 'level 0 "unified"'), PLAIN, same)
    assert "another cgroup (2)" in differences(text.replace('"unified"', "2"), PLAIN, same)[0]
    assert differences(text.replace("\t\tip6 daddr ::1 tcp dport 15432 accept\n", ""), PLAIN, same)
    more = text.replace("\t\tcounter drop", "\t\tip daddr 203.0.113.1 accept\n\t\tcounter drop", 1)
    assert differences(more, PLAIN, same) == ["nftables: weir has also 'ip daddr 203.0.113.1 accept'"]
    last = "\t\tip6 saddr ::1 ip6 daddr ::1 tcp flags != syn / syn,ack accept\n"
    moved = text.replace(f"{last}\t\tcounter drop\n", f"\t\tcounter drop\n{last}")
    assert "another order" in differences(moved, PLAIN, same)[0]


def test_a_joined_cgroup_is_treated_as_the_slice() -> None:
    text = render_table(JOINED)
    for rest in ("meta l4proto tcp jump crew_nat", "jump crew_output", "jump crew_input"):
        assert f'socket cgroupv2 level 1 "weir.slice" {rest}\n' in text
        assert f'socket cgroupv2 level 2 "system.slice/a-b@1.service" {rest}\n' in text
    assert differences(text, JOINED, same) == []
    assert differences(text.replace('"system.slice/a-b@1.service"', "4712"), JOINED, same) == []
    line = '\t\tsocket cgroupv2 level 2 "system.slice/a-b@1.service" jump crew_output\n'
    assert "lacks" in differences(text.replace(line, ""), JOINED, same)[0]
    other = text.replace('"system.slice/a-b@1.service" jump crew_output', '"weir.slice" jump crew_output')
    assert "another cgroup (weir.slice)" in differences(other, JOINED, same)[0], "at that level it is none"
    with pytest.raises(ValueError):
        Ruleset("weir", "weir.slice", 1, 1, None, False, (('x" accept', 2),))


@pytest.mark.parametrize(("name", "path", "level", "port", "resolver"), [
    ("a; drop", "weir.slice", 1, 1, None), ("weir", 'x" accept', 1, 1, None), ("weir", "weir.slice", 0, 1, None),
    ("weir", "weir.slice", 1, 0, None), ("weir", "weir.slice", 1, 1, ("192.0.2.1 accept", 53)),
    ("weir", "weir.slice", 1, 1, ("192.0.2.1", 65536)),
])
def test_nothing_else_gets_into_the_text(
    name: str, path: str, level: int, port: int, resolver: tuple[str, int] | None) -> None:
    with pytest.raises(ValueError):
        Ruleset(name, path, level, port, resolver, False)
