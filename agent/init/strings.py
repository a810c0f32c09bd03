"""Pure: what a crew's environment says of whom it talks to: connection strings, libpq's variables, addresses of models.

Whoever wrote these is not trusted: a host that is none, a port out of bounds, a text that is not printable are left
out.  A password goes into `Secret`, and into nothing else.

Sources: PostgreSQL 15, 34.1.1 (connection strings), 34.15 (variables).
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from agent.contract.names import is_public
from agent.init.findings import OTHER, PASSWORD, Peer, Secret
from agent.settings.credential_table import KUBERNETES, POSTGRESQL, SSH
from agent.settings.fields import DIALLED, HOST, PORT, TEXT, Kind, is_address

LIMIT: Final = 4096                   # characters of one value; secrets have no more
VARIABLES: Final = 4096               # of one environment
PG_PORT: Final = 5432
HTTPS: Final = 443
_POSTGRES: Final = re.compile(r"postgres(ql)?(\+[a-z0-9_]+)?", re.IGNORECASE)       # SQLAlchemy names the driver too
_WORD: Final = re.compile(r"\s*([a-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)", re.DOTALL)
_SSLMODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Variables that hold a key for it, or its address.
MODELS: Final = {
    "OPENAI": "api.openai.com", "ANTHROPIC": "api.anthropic.com", "GEMINI": "generativelanguage.googleapis.com",
    "GOOGLE": "generativelanguage.googleapis.com", "MISTRAL": "api.mistral.ai", "GROQ": "api.groq.com",
    "COHERE": "api.cohere.com", "DEEPSEEK": "api.deepseek.com", "OPENROUTER": "openrouter.ai",
    "SERPER": "google.serper.dev", "TAVILY": "api.tavily.com", "HUGGINGFACE": "api-inference.huggingface.co",
}
_ADDRESS: Final = re.compile(r"([A-Z0-9_]+?)_(?:BASE_URL|API_BASE|ENDPOINT|API_URL|HOST)")
LIBPQ: Final = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname", "PGPASSWORD": "password",
                "PGSSLMODE": "sslmode", "PGSSLROOTCERT": "sslrootcert"}
_SCHEMES: Final = {"ssh": (SSH, 22), "kubernetes": (KUBERNETES, 6443)}


def parse_environment(variables: Mapping[str, str], where: str) -> Iterator[Peer]:
    """`where`: whose these are, as "crew.service"."""
    shown = {name: value for name, value in list(variables.items())[:VARIABLES] if len(value) <= LIMIT}
    for name, value in shown.items():
        place = f"{_named(name)} of {where}"
        if (found := parse_postgres(value, place)) is not None:
            yield found
    if (libpq := parse_libpq(shown, where)) is not None:
        yield libpq
    yield from _models(shown, where)


def _named(name: str) -> str:
    return name if name.isidentifier() and name.isascii() and len(name) <= 64 else "a variable"


def parse_postgres(text: str, place: str) -> Peer | None:
    """A URI or `key=value` words.  None where it is none, or is not understood."""
    try:
        scheme = text.partition("://")[0]
        said = _uri(text) if _POSTGRES.fullmatch(scheme) else _words(text)
    except ValueError:
        return None
    return _database(said, place) if said else None


def _uri(text: str) -> dict[str, str]:
    """As libpq's keywords.  Of several hosts the first.  Raises ValueError."""
    parts = urlsplit(text)
    place = parts.netloc.rpartition("@")[2].split(",")[0]
    parts = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{place}")
    said = {"host": unquote(parts.hostname or ""), "port": str(parts.port or ""),
            "user": unquote(parts.username or ""), "password": unquote(parts.password or ""),
            "dbname": unquote(parts.path.lstrip("/"))}
    return {name: value for name, value in said.items() if value} | dict(parse_qsl(parts.query)) or {"host": ""}


def _words(text: str) -> dict[str, str]:
    """Empty: it is no such string, which must name a host and a database or user.  Raises ValueError."""
    said, rest = {}, text.strip()
    while rest:
        found = _WORD.match(rest)
        if found is None:
            return {}
        value = found[2][1:-1] if found[2].startswith("'") else found[2]
        said[found[1]] = re.sub(r"\\(.)", r"\1", value)
        rest = rest[found.end():].lstrip()
    return said if "host" in said and said.keys() & {"dbname", "user"} else {}


def parse_libpq(variables: Mapping[str, str], where: str) -> Peer | None:
    """All of one process: what one says of a host, another's password is not for."""
    said = {word: value for name, word in LIBPQ.items() if (value := variables.get(name)) and len(value) <= LIMIT}
    if "host" not in said:
        return None
    return _database(said, f"PGHOST of {where}", f"PGPASSWORD of {where}")


def _database(said: Mapping[str, str], place: str, secret_place: str = "") -> Peer | None:
    password = said.get("password", "")
    secrets = (Secret(PASSWORD, password, secret_place or place),) if is_secret(password) else ()
    port = _port(said.get("port", ""), PG_PORT)
    host = said.get("host", "") or "localhost"
    root = said.get("sslrootcert", "")
    if not port:
        return None
    made = Peer(
        POSTGRESQL, (), port, (place,), user=printable(said.get("user", "")),
        database=printable(said.get("dbname", "")),
        tls=said.get("sslmode", "") if said.get("sslmode") in _SSLMODES else "", secrets=secrets,
        root_file=root if root.startswith(("/", "~/")) and printable(root) else "")
    return _at(made, host)


def _at(made: Peer, host: str) -> Peer | None:
    """By name, address, or the directory of its socket."""
    if host.startswith("/"):
        socket = _parsed(DIALLED, f"{host.rstrip('/')}/.s.PGSQL.{made.port}")
        return _changed(made, socket=socket) if socket else None
    found = host_of(host)
    return _changed(made, hosts=(found,)) if found else None


def _changed(made: Peer, **what: object) -> Peer:
    return msgspec.structs.replace(made, **what)


def _models(variables: Mapping[str, str], where: str) -> Iterator[Peer]:
    """What has an address of its own is not where it usually is."""
    own: set[str] = set()
    for name, value in variables.items():
        if (found := _ADDRESS.fullmatch(name)) and (peer := _https(value, f"{name} of {where}")) is not None:
            own.add(found[1])
            yield peer
    for maker, host in MODELS.items():
        if maker not in own and variables.get(f"{maker}_API_KEY"):
            yield Peer(OTHER, (host,), 443, (f"{maker}_API_KEY of {where}",))


def _https(text: str, place: str) -> Peer | None:
    """Of an http or https URL, its host and port."""
    if not text.startswith(("http://", "https://")):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    host = host_of(parts.hostname or "")
    return Peer(OTHER, (host,), port, (place,)) if host else None


# what somebody says of a target: --target NAME=URL


class Unclear(ValueError):
    """Why it is not understood; without what was said, for a password may be in it."""


def parse_target(name: str, text: str) -> Peer:
    """postgresql://, ssh://, kubernetes:// or https:// of a cluster.  Raises Unclear."""
    try:
        parts = urlsplit(text)
        secret = parts.password is not None or any(one.lower() == "password" for one, _ in parse_qsl(parts.query))
        port = parts.port
    except ValueError:
        raise Unclear("it is no URL; postgresql://USER@HOST:5432/DATABASE would be right") from None
    if secret:
        raise Unclear("it has a password, and everybody on this host sees what a command is given: leave it out, "
                      "and put it into the file that will be named")
    if _POSTGRES.fullmatch(parts.scheme):
        found = parse_postgres(text, "--target")
    else:
        found = _other(parts, port)
    if found is None:
        raise Unclear("its host or port is none; postgresql://USER@HOST:5432/DATABASE, ssh://ACCOUNT@HOST:22 or "
                      "kubernetes://HOST:6443/NAMESPACE would be right")
    return _changed(found, name=name, why=("--target",), sure=True)


def _other(parts: SplitResult, port: int | None) -> Peer | None:
    protocol, usual = _SCHEMES.get(parts.scheme, (KUBERNETES, 443) if parts.scheme == "https" else (OTHER, 0))
    host = host_of(parts.hostname or "")
    if not protocol or not host:
        return None
    inner = printable(unquote(parts.path.strip("/")))
    return Peer(protocol, (host,), port or usual, (), user=printable(unquote(parts.username or "")), database=inner)


# what is right


def host_of(text: str) -> str:
    """As weir.toml has it; empty: it is none."""
    return _parsed(HOST, text)


def printable(text: str) -> str:
    """Empty where it could not stand in weir.toml."""
    return _parsed(TEXT, text)


def _parsed(kind: Kind, text: str) -> str:
    try:
        return str(kind.parse(text))
    except ValueError:
        return ""


def _port(text: str, usual: int) -> int:
    """0: it is none."""
    try:
        return int(PORT.parse(int(text) if text else usual))
    except ValueError:
        return 0


def is_usual(host: str, port: int) -> bool:
    """Whether a place of no protocol that Weir speaks looks like one of HTTPS outside, as models' are: what else it
    is, only a person can say."""
    return port == HTTPS and (not is_address(host) or is_public(host))


def is_secret(text: str) -> bool:
    """What could be a password: one line of UTF-8, as a file of Weir's holds one."""
    return 0 < len(text) <= LIMIT and not any(one in "\0\r\n" or "\ud800" <= one <= "\udfff" for one in text)
