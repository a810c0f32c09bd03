"""Targets of requests to clusters, made of what there is, what is odd and what is hostile."""
from __future__ import annotations

import random
from collections.abc import Iterator

from enforcer.protocols.kubernetes.info import Info, Unclear
from enforcer.protocols.kubernetes.request_info import read_info
from enforcer.protocols.kubernetes.target_path import parse_target

METHODS = (*["GET"] * 6, "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "Post", "FOO")
PLACES = (
    "", "/", "/api", "/api/v1", "/apis/apps/v1", "/apis/batch", "/api/v1/namespaces/shop", "/apis/apps/v1/namespaces/n",
    "/api/v1/watch", "/apis/apps/v1/proxy", "/api/v1/watch/namespaces/d", "/api/v1/namespaces", "/API/v1")
SEGMENTS = (
    "api", "apis", "v1", "apps", "pods", "namespaces", "default", "watch", "proxy", "status", "finalize", "exec", "log",
    "web-1", "nodes", "deployments", "scale", "%70ods", "p%6fds", "PODS", "a%20b", "a+b", "a%2Bb", "x:80", "http:x:80",
    "a%25b", "*", "~", "healthz", "custom.metrics.k8s.io", "%C3%A9", "@", "a=b", "secrets", "watch%20", "na%6despaces")
HOSTILE = ("..", ".", "", "%2e%2e", "%2F", "a%2Fb", "a;b", "%00", "%zz", "%252e", "é", "%FF", "a\\b", "%5c", "a|b",
"a#b")
OPTIONS = (
    "watch", "watch=1", "watch=true", "watch=false", "watch=0", "watch=FALSE", "watch=", "watch=no", "w%61tch=true",
    "watch=%31", "watch=00", "watch=f", "Watch=1", "watch[]=1", "watch=+", "limit=5", "limit=+5", "limit=-1",
    "limit=1_0",
    "limit=x", "limit=", "limit=9223372036854775807", "limit=9223372036854775808", "timeoutSeconds=3",
    "timeoutSeconds=q",
    "resourceVersion=0", "resourceVersionMatch=Exact", "allowWatchBookmarks=x", "sendInitialEvents=q", "continue=zz",
    "pretty=1", "command=a&command=b", "dryRun=All", "&&", "=", "=1", "a;b", "a=%zz", "watch=fal%C5%BFe",
    "watch=1&watch=0")
FIELDS = (
    "", "metadata.name=x", "metadata.name==x", "metadata.name!=x", "metadata.name", "metadata.name=",
    "metadata.name=a/b",
    "metadata.name=..", "metadata.name=a%b", "metadata.name=a,metadata.name=b", "metadata.name=a,metadata.name=a",
    "metadata.name=a\\,b", "metadata.name=a\\x", "metadata.name=a\\", "metadata.name=x=y", " metadata.name=x",
    "metadata.name =x", ",,metadata.name=x,", "spec.nodeName=n,metadata.name=x", "metadata.namespace=x", "a!b", "=x",
    "!=x",
    "metadata.name=!x", "metadata.name=\\=x", "Metadata.name=x", "metadata.name=x,spec.a!=b", "metadata.name=x y")
LABELS = (
    "", " ", "a", "!a", "! a", "a=b", "a==b", "a!=b", "a=", "a= ", "a in (b,c)", "a in (b, c)", "a in ()", "a in (,b)",
    "a in (b,,c)", "a notin (b)", "a notin(b)", "ain (b)", "a in b", "a,b", "a,,b", ",a", "a,", "a>1", "a>b", "a=b/c",
    "x.y/z=1", "x/y/z", "X/y", "-a", "a-", "a=-b", "a=b=c", "a b", "in", "in in (in)", "notin=in", "a in (b c)", "(",
    ")",
    "a=(b)", "a\t=b", "a=" + "b" * 63, "a=" + "b" * 64, "a" * 64, "a.=b", "a=b.c_d")


def _quoted(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)


def _one(dice: random.Random) -> tuple[str, str]:
    path = dice.choice(PLACES) + "".join(
        "/" + dice.choice(SEGMENTS if dice.random() < 0.95 else HOSTILE) for _ in range(dice.randint(0, 4)))
    options = [dice.choice(OPTIONS) for _ in range(dice.choice((0, 0, 1, 2)))]
    options += [f"fieldSelector={_quoted(dice.choice(FIELDS))}"] if dice.random() < 0.4 else []
    options += [f"labelSelector={_quoted(dice.choice(LABELS))}"] if dice.random() < 0.4 else []
    dice.shuffle(options)
    return dice.choice(METHODS), (path or "/") + "/" * (dice.random() < 0.1) + ("?" + "&".join(options)) * bool(options)


def accepted(seed: int, asked: int) -> Iterator[tuple[str, str, str, Info]]:
    """(method, target as it was sent, as it is sent on, Weir's reading) of what Weir accepts."""
    dice = random.Random(seed)
    for _ in range(asked):
        method, target = _one(dice)
        try:
            path, query, rendered = parse_target(target.encode())
            yield method, target, rendered.decode(), read_info(method, path, query)
        except Unclear:
            continue
