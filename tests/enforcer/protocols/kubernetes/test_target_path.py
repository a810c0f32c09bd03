"""Targets of requests: what is read, what is refused, what the server gets."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.protocols.kubernetes.info import Query, Unclear
from enforcer.protocols.kubernetes.target_path import LIMIT, parse_target


@pytest.mark.parametrize(("target", "path", "query", "rendered"), [
    (b"/", "/", (), b"/"),
    (b"/version?", "/version", (), b"/version"),
    (b"/version/", "/version/", (), b"/version/"),
    (b"/api/v1/pods?limit=500", "/api/v1/pods", (("limit", "500"),), b"/api/v1/pods?limit=500"),
    (b"/api/v1/p%6Fds", "/api/v1/pods", (), b"/api/v1/pods"),
    (b"/api/v1/p%6fds?w%61tch=%31", "/api/v1/pods", (("watch", "1"),), b"/api/v1/pods?watch=1"),
    (b"/a?b&c=&=d&&e", "/a", (("b", ""), ("c", ""), ("", "d"), ("e", "")), b"/a?b&c=&=d&e"),
    (b"/a?x=a+b&y=a%2Bb&z=a%20b", "/a", (("x", "a b"), ("y", "a+b"), ("z", "a b")), b"/a?x=a%20b&y=a%2Bb&z=a%20b"),
    (b"/a?x=a%26b%3Dc%23%3B", "/a", (("x", "a&b=c#;"),), b"/a?x=a%26b%3Dc%23%3B"),
    (b"/a?x=a=b", "/a", (("x", "a=b"),), b"/a?x=a%3Db"),
    (b"/a?command=sh&command=-c&command=a%0Ab", "/a", (("command", "sh"), ("command", "-c"), ("command", "a\nb")),
     b"/a?command=sh&command=-c&command=a%0Ab"),
    (b"/a?labelSelector=app in (a,b)".replace(b" ", b"+"), "/a", (("labelSelector", "app in (a,b)"),),
     b"/a?labelSelector=app%20in%20%28a,b%29"),
    (b"/%C3%A9?q=%C3%A9", "/é", (("q", "é"),), b"/%C3%A9?q=%C3%A9"),
    (b"/a+b/a%2Bb", "/a+b/a+b", (), b"/a+b/a+b"),
    (b"/services/https:web:8443/proxy/a%20b%3F%23/", "/services/https:web:8443/proxy/a b?#/", (),
     b"/services/https:web:8443/proxy/a%20b%3F%23/"),
    (b"/a%25b", "/a%b", (), b"/a%25b"),
])
def test_is_read_and_rendered(target: bytes, path: str, query: Query, rendered: bytes) -> None:
    assert parse_target(target) == (path, query, rendered)
    assert parse_target(rendered) == (path, query, rendered)


@pytest.mark.parametrize("target", [
    b"", b"*", b"api/v1", b"http://kube/api/v1", b"https://kube:6443/api", b"kube:443", b"//api/v1", b"//", b"/a//b",
    b"/a//", b"/./a", b"/a/.", b"/..", b"/a/../b", b"/a/%2e%2e/b", b"/a/.%2E/b", b"/%2e", b"/a%2Fb", b"/a%2fb",
    b"/a%5Cb", b"/a\\b", b"/a;b", b"/a%3Bb", b"/..;/a", b"/a%252Fb", b"/a%252e", b"/%2525", b"/a%00", b"/a%0a",
    b"/a%0D%0A",
    b"/a%7F", b"/a%C2%85", b"/a\x00", b"/a b", b"/a\tb", b"/a\r\n", b"/\xc3\xa9", b"/%C3", b"/%FF", b"/%C0%AF",
    b"/%C0%AE",
    b"/%ED%A0%80", b"/%", b"/%4", b"/%zz", b"/%u0041", b"/a#b", b"/a?b#c", b'/a"b', b"/a<b", b"/a|b", b"/a^b", b"/a`b",
    b"/{a}", b"/[a]", b"/a?b=%zz", b"/a?b=%", b"/a?b;c=d", b"/a?b c", b"/a?\x7f", b"/a?b=\xff", b"/a?b=%FF",
    b"/a?b=%00", b"/a?%00=b", b"/a?b=\r\n",
])
def test_is_refused(target: bytes) -> None:
    with pytest.raises(Unclear) as refused:
        parse_target(target)
    assert refused.value.status == 400


def test_is_bounded() -> None:
    assert parse_target(b"/" + b"a" * (LIMIT - 1))
    with pytest.raises(Unclear) as refused:
        parse_target(b"/" + b"a" * LIMIT)
    assert refused.value.status == 414


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text("/.%2eEfF5cC;?&=+#ab \x00é", max_size=40).map(str.encode)))
def test_says_one_thing_or_is_refused(target: bytes) -> None:
    try:
        path, query, rendered = parse_target(b"/" + target)
    except Unclear:
        return
    assert parse_target(rendered) == (path, query, rendered)
    assert all(one not in ("", ".", "..") for one in path.split("/")[1:-1])
