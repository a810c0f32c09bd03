"""Pure: what a field of the configuration may hold.  A table of `Section`s gives parser, example file and reference.

A kind parses one TOML value; what is wrong comes as ValueError, with what would be right.
"""
from __future__ import annotations

import difflib
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from agent.contract.identity import ServiceIdentity
from agent.settings.positions import Path, line_of

REQUIRED: Final = object()
LIST_LIMIT: Final = 1000              # entries of one list
TEXT_LIMIT: Final = 4096              # characters of one text
COMMAND_LIMIT: Final = 64             # words of a command
SOCKET_LIMIT: Final = 107             # bytes of a Unix socket's path
# Who writes the secret itself means the file that holds it.
_SECRETS: Final = {"password": "password_file", "passwd": "password_file", "pass": "password_file",
                   "secret": "client_secret_file", "client_secret": "client_secret_file",
                   "secret_id": "secret_id_file", "token": "token_file", "jwt": "jwt_file",
                   "bot_token": "bot_token_file", "app_token": "app_token_file",
                   "signing_secret": "signing_secret_file"}
_SAID: Final = {"account": "role", "username": "user"}        # as others call it
UNQUOTED: Final = ": write it without quotes"
OWN_PLACES: Final = ("/run", "/tmp", "/var/tmp")      # noqa: S108  every view has its own, and empty, ones

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RUNTIME: Final = re.compile(r"[a-z][a-z0-9-]{0,15}")
_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,247}\.service")
_UNIT_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}")     # a file's name: no slash
_LABEL: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*"
                          r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?")
# Below these anybody has names: the most used of publicsuffix.org's, two labels long.
_REGISTRIES: Final = frozenset(
    f"{second}.{country}"
    for country in "uk au nz za jp kr br in cn tw hk sg il tr mx ar id th my ua pl at".split()
    for second in "ac co com edu gov govt go ne net or org".split())
_PROVIDER: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_ISSUER: Final = re.compile(r"https://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
                            r"(/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?")
_PAGE: Final = re.compile(r"(https?)://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?/?")
_HOST_PORT: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_ENTITY: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,1000}")
_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,128}")
_VAULT_PATH: Final = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9_.@:=+ -]{1,128}(/[A-Za-z0-9_.@:=+ -]{1,128}){0,15}")
_QUANTITY: Final = re.compile(r"(\d{1,12})\s*([A-Za-z]+)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_IDENTIFIER: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_$]*|"(?:[^"]|"")+")')


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong.  `line` and `column` from 1, 0 where they are not known."""

    file: str
    line: int
    field: str
    message: str
    column: int = 0

    def __str__(self) -> str:
        column = f":{self.column}" if self.column else ""
        where = f"{self.file}:{self.line}{column}: " if self.line else f"{self.file}: "
        return where + (f"{self.field}: " if self.field else "") + self.message


class ConfigError(Exception):
    """Everything that is wrong, at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class SaidWhole(ValueError):
    """What is wrong, with what would be right."""


@dataclass(frozen=True)
class Kind:
    right: str                        # what would be right, as it stands in an error and in the reference
    parse: Callable[[Any], Any]


@dataclass(frozen=True)
class Field:
    name: str
    kind: Kind
    meaning: str
    default: Any = REQUIRED           # as it would stand in the file; None: as the meaning says
    example: Any = None               # in the example file, where the default says little
    attribute: str = ""               # of the struct, where it is not the name
    restart: bool = False             # a reload cannot change it
    instead: bool = False             # of other fields: in the example file it stays a comment
    of: tuple[str, ...] = ()          # the protocols whose targets have it; empty: all.  A name may stand once for each


@dataclass(frozen=True)
class Section:
    name: str
    struct: type[Any]
    many: bool                        # [[name]]
    meaning: str
    fields: tuple[Field, ...]
    children: tuple[Section, ...] = ()
    attribute: str = ""               # of the enclosing struct, for the tuple of a section that may stand often
    chooser: str = ""                 # the field that says which of the fields with `of` count, here and in `children`
    only: tuple[str, ...] = ()        # the protocols whose targets have it; empty: all

    def inner(self, protocol: str) -> tuple[Section, ...]:
        """Its children in a target of this protocol; all of them where it is not known."""
        return tuple(one for one in self.children if not protocol or not one.only or protocol in one.only)

    def of(self, protocol: str) -> tuple[Field, ...]:
        """Its fields in a target of this protocol; of none where it is not known: the first of each name."""
        if protocol:
            return tuple(one for one in self.fields if not one.of or protocol in one.of)
        return tuple({one.name: one for one in reversed(self.fields)}.values())[::-1]

    def written(self, path: Path = ()) -> str:
        """As it stands in a file, below the tables that `path` leads through."""
        name = ".".join([*(part for part in path if isinstance(part, str)), self.name])
        return f"[[{name}]]" if self.many else f"[{name}]"


@dataclass
class Report:
    """Collects what is wrong with one file."""

    file: str
    lines: dict[Path, int]
    problems: list[Problem] = field(default_factory=list)
    made: dict[Path, Any] = field(default_factory=dict)         # every table that is right by itself
    protocols: dict[Path, str] = field(default_factory=dict)    # of each target that says one, also of wrong ones
    homes: Mapping[str, str] = field(default_factory=dict)      # name -> where it would be right, as `places` says

    def entries(self, *names: str) -> list[tuple[Path, Any]]:
        """Tables of the array of this name; of every one that encloses it: entries("target", "credential")."""
        return [(path, one) for path, one in self.made.items() if path[::2] == names and len(path) == 2 * len(names)]

    def wrong(self, name: str) -> bool:
        """Whether one of the tables of this name has a mistake."""
        return any(one.field.startswith(f"{name}[") or one.field == name for one in self.problems)

    def add(self, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, line_of(self.lines, path), render_path(path), message))


def render_path(path: Path) -> str:
    """`target[2].credential[1].user`: as a person counts."""
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


# parsing by the table


def parse_section(section: Section, raw: Any, path: Path, report: Report, protocol: str = "") -> Any:
    """A struct, or None where something is wrong with it.  `protocol`: of the target that it is in."""
    if not isinstance(raw, dict):
        report.add(path, f"is a table: write {section.written(_enclosing(path))} and its fields below")
        return None
    before = len(report.problems)
    if chosen := _chosen(section, raw):
        protocol = report.protocols[path] = chosen
    elif section.chooser in raw:      # what else would be right, nobody knows
        _field(next(one for one in section.fields if one.name == section.chooser), raw, path, report, False)
        return None
    fields = section.of(protocol)
    inner = section.inner(protocol)
    names = {one.name: one.name for one in fields} | {one.name: one.written(path) for one in inner}
    others = _others(section, raw, names, protocol, path, report)
    meant = check_names({name: raw[name] for name in raw if name not in others}, names, path, report)
    values = {one.attribute or one.name: _field(one, raw, path, report, one.name in meant) for one in fields}
    for child in section.children:
        there = raw if child in inner else {}
        values[child.attribute or child.name] = parse_tables(child, there, path, report, protocol)
    if len(report.problems) != before:
        return None
    made = report.made[path] = section.struct(**values)
    return made


def _chosen(section: Section, raw: Mapping[str, Any]) -> str:
    """The protocol that a table says, or nearly; empty: it says none that is known."""
    said = raw.get(section.chooser)
    known = dict.fromkeys(name for one in section.fields for name in one.of)
    near = difflib.get_close_matches(said.lower(), known, 1, 0.6) if isinstance(said, str) else []
    return said if isinstance(said, str) and said in known else "".join(near)


def _others(
    section: Section, raw: Mapping[str, Any], names: Mapping[str, str], protocol: str, path: Path, report: Report,
) -> set[str]:
    """Fields of other protocols than the target's, which are said to be."""
    of: dict[str, tuple[str, ...]] = {}
    for one in section.fields:
        if one.name in raw and one.name not in names:
            of[one.name] = (*of.get(one.name, ()), *one.of)
    of |= {one.name: one.only for one in section.children if one.name in raw and one.name not in names}
    for name, protocols in of.items():
        report.add((*path, name), f"is not a field of {protocol} targets, but of {', '.join(protocols)} ones: leave it "
                   "out")
    return set(of)


def parse_tables(
    section: Section, raw: Mapping[str, Any], path: Path, report: Report, protocol: str = "",
) -> tuple[Any, ...]:
    """Every [[name]] that is right."""
    tables = raw.get(section.name, [])
    if not isinstance(tables, list):
        report.add((*path, section.name), f"may stand often: write {section.written(path)}")
        return ()
    if len(tables) > LIST_LIMIT:
        report.add((*path, section.name), f"stands {len(tables)} times, {LIST_LIMIT} is the most")
        return ()
    parsed = (parse_section(section, one, (*path, section.name, number), report, protocol)
              for number, one in enumerate(tables))
    return tuple(one for one in parsed if one is not None)


def _field(one: Field, raw: Mapping[str, Any], path: Path, report: Report, misspelt: bool) -> Any:
    if one.name not in raw:
        if one.default is REQUIRED:
            if not misspelt:
                report.add(path, f"{one.name} is missing: {one.kind.right}")
            return None
        return None if one.default is None else one.kind.parse(one.default)
    try:
        return one.kind.parse(raw[one.name])
    except ValueError as wrong:
        right = "" if isinstance(wrong, SaidWhole) else f"; {one.kind.right} would be right"
        report.add((*path, one.name), f"{wrong}{right}")
        return None


def _enclosing(path: Path) -> Path:
    """Of a table's path, that of the table around it."""
    return path[:-2] if path and isinstance(path[-1], int) else path[:-1]


def check_names(raw: Mapping[str, Any], names: Mapping[str, str], path: Path, report: Report) -> set[str]:
    """Names that are not there.  `names`: each as it is written.  Gives those of `names` that were probably meant."""
    found = [(name, *(_secret(name, names, report.homes) or _unknown(name, names, report.homes.get(name, ""))))
             for name in raw if name not in names]
    for name, message, _ in found:
        report.add((*path, name), message)
    return {meant for _, _, meant in found}


def _secret(name: str, names: Mapping[str, str], homes: Mapping[str, str]) -> tuple[str, str] | None:
    """As `_unknown`, of the name of a secret."""
    file = _SECRETS.get(name.lower(), "")
    if file not in names and file not in homes:
        return None
    where = "" if file in names else f", {homes[file]},"
    return (f"is not known: secrets never stand in this file; {file}{where} names the file that holds it",
            file if file in names else "")


def _unknown(name: str, names: Mapping[str, str], home: str) -> tuple[str, str]:
    """What is said, and the name that was meant ("": none is near)."""
    if (other := _SAID.get(name.lower(), "")) in names:
        return f"is not known; did you mean {names[other]}?", other
    for alike in (0.8, 0.6):
        if near := difflib.get_close_matches(name.lower(), names, 1, alike):
            return f"is not known; did you mean {names[near[0]]}?", near[0]
        if home:
            return f"is not known here; it is {home}", ""
    return f"is not known; there are: {', '.join(names.values())}", ""


def places(sections: Iterable[Section], path: Path = ()) -> dict[str, str]:
    """Where each field and each inner table stands: for who wrote it elsewhere."""
    found: dict[str, list[str]] = {}
    homes: dict[str, str] = {}
    for section in sections:
        for one in section.fields:
            found.setdefault(one.name, []).append(section.written(path))
        for child in section.children:
            homes[child.name] = f"written {child.written((*path, section.name))}"
            for one in child.fields:
                found.setdefault(one.name, []).append(child.written((*path, section.name)))
    return {name: f"a field of {' or '.join(dict.fromkeys(where))}" for name, where in found.items()} | homes


def protocols() -> tuple[str, ...]:
    """Folders under enforcer/protocols; their code is the enforcer's and is not imported here."""
    root = FilePath(__file__).resolve().parents[2] / "enforcer" / "protocols"
    return tuple(sorted(path.name for path in root.iterdir() if any(path.glob("*.py"))))


# kinds


def _shown(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a text")
    if not value or len(value) > TEXT_LIMIT or not value.isprintable():
        raise ValueError("it is empty, longer than 4096 characters or not printable")
    return value


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not pattern.fullmatch(text := _text(value)):
            raise ValueError(_shown(text) + " is no such name")
        return text

    return parse


def _absolute(value: Any) -> str:
    text = _text(value)
    if not text.startswith("/") or ".." in text.split("/"):
        # What is no path at all may be the secret itself, where a file of it belongs.
        raise ValueError(f"{_shown(text) if '/' in text else 'it'} is not an absolute path")
    return text.rstrip("/") or "/"


def _socket(value: Any) -> str:
    """unix(7): sun_path has room for 107 bytes and a zero."""
    text = _absolute(value)
    if len(text.encode()) > SOCKET_LIMIT or text == "/":
        raise ValueError(f"{_shown(text)} is no path of a Unix socket")
    return "/run" + text.removeprefix("/var/run") if text.startswith("/var/run/") else text


def _dialled(value: Any) -> str:
    text = _socket(value)
    if not text.startswith(tuple(f"{place}/" for place in OWN_PLACES)):
        raise ValueError(f"{_shown(text)} lies elsewhere")
    if text.startswith("/run/sockets/"):
        raise ValueError(f"{_shown(text)} is where Weir's own are")
    return text


def _command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= COMMAND_LIMIT:
        raise ValueError(f"{_shown(value)} is not a list of 1 to {COMMAND_LIMIT} texts")
    return _absolute(value[0]), *map(_text, value[1:])


def _home_path(value: Any) -> str:
    text = _text(value)
    if text == "~" or text.startswith("~/"):
        return "~" + _absolute("/" + text[2:]).rstrip("/") if text[2:] else "~"
    return _absolute(text)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false"
                         + (UNQUOTED if value in ("true", "false") else ""))
    return value


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            number = isinstance(value, int) and not isinstance(value, bool)
            raise ValueError(f"{_shown(value)} is {'out of bounds' if number else 'no whole number'}"
                             + (UNQUOTED if isinstance(value, str) and value.isdecimal() else ""))
        return value

    return parse


def _quantity(units: Mapping[str, int], least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        found = _QUANTITY.fullmatch(_text(value))
        if not found or found[2] not in units:
            raise ValueError(f"{_shown(value)} is not a number with a unit of {', '.join(units)}")
        amount = int(found[1]) * units[found[2]]
        if not least <= amount <= most:
            raise ValueError(f"{_shown(value)} is out of bounds")
        return amount

    return parse


def _address(value: Any) -> str:
    text = _text(value)
    if "/" in text or "%" in text:
        raise ValueError(f"{_shown(text)} is a network, or has a zone")
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{_shown(text)} is not an address") from None
    mapped = getattr(found, "ipv4_mapped", None)
    if found.is_unspecified or found.is_multicast:
        raise ValueError(f"{_shown(text)} is no host's address")
    return str(mapped or found)


def _host(value: Any, port: str = "port") -> str:
    """`port`: the field that a port goes into."""
    text = _text(value)
    if "://" in text:
        raise ValueError(f"{_shown(text)} is a URL: write the host name alone")
    if re.fullmatch(r"([^:/]+|\[[^/]*\]):\d+", text):
        raise ValueError(f"{_shown(text)} has a port, which goes into `{port}`")
    if "/" in text:
        raise ValueError(f"{_shown(text)} is a network, or a path")
    if ":" in text or re.fullmatch(r"[0-9.]+", text):
        return _address(text)
    if not _HOST.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a host name")
    return text.rstrip(".").lower()


def _egress_host(value: Any) -> str:
    """RFC 4592's wildcard, as whole first label, and never so wide that it is a registry's."""
    text = _text(value)
    if not text.startswith("*"):
        return _host(text, "ports")
    name = _host(text[2:], "ports") if text.startswith("*.") and len(text) > 2 else ""
    if not name or is_address(name) or name.count(".") < 1 or name in _REGISTRIES:
        raise ValueError(f"{_shown(text)} is wider than one owner's names")
    return f"*.{name}"


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _loopback(value: Any) -> str:
    text = _address(value)
    one = ipaddress.ip_address(text)
    if one.version != 4 or not one.is_loopback:
        raise ValueError(f"{_shown(text)} is none")
    return text


def _resolver(value: Any) -> tuple[str, int]:
    text = _text(value)
    bracketed = re.fullmatch(r"\[(.*)\](?::(\d{1,5}))?", text) or re.fullmatch(r"([0-9.]+)(?::(\d{1,5}))?", text)
    address, port = (bracketed[1], bracketed[2]) if bracketed else (text, None)
    return _address(address), _whole(1, 65535)(int(port or 53))


def _choice(names: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if _text(value) not in names:
            if near := difflib.get_close_matches(value, names, 1, 0.6):
                known = f"none of {', '.join(names)}" if len(names) > 1 else "not known"
                raise SaidWhole(f"{_shown(value)} is {known}; did you mean {near[0]}?")
            raise ValueError(f"{_shown(value)} is none of them")
        return str(value)

    return parse


def _column(value: Any) -> tuple[str, str, str]:
    parts = [part for part in _IDENTIFIER.split(_text(value))]
    if len(parts) != 7 or [parts[0], parts[2], parts[4], parts[6]] != ["", ".", ".", ""]:
        raise ValueError(f"{_shown(value)} is not of three names")
    schema, table, column = (_identifier(parts[number]) for number in (1, 3, 5))
    return schema, table, column


def _identifier(part: str) -> str:
    """As PostgreSQL 15, 4.1.1: folded to lower case where not quoted."""
    return part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()


def _mask(value: Any) -> str:
    text = _text(value)
    if text not in MASKS and not text.startswith("constant:"):
        raise ValueError(f"{_shown(text)} is no mask")
    return text


def _selector(value: Any) -> str:
    return _text(value)


def _issuer(value: Any) -> str:
    """OpenID Connect Core 1.0, 2: an https URL without query or fragment; as it is, for tokens hold it as it is."""
    return _with_port(_ISSUER, value)


def _entity(value: Any) -> str:
    """SAML 2.0 Core, 8.3.6: a URI of 1024 characters at most; as it is, for answers hold it as it is."""
    text = _text(value)
    if not _ENTITY.fullmatch(text):
        raise ValueError(f"{_shown(text)} is none")
    return text


def _https(value: Any) -> str:
    text = _text(value)
    if not _ISSUER.fullmatch(text.partition("?")[0]) or "#" in text or not text.isascii():
        raise ValueError(f"{_shown(text)} is none")
    return text


def _page(value: Any) -> str:
    """RFC 6454, 4: scheme, host and port, as browsers write an origin."""
    text = _text(value)
    found = _PAGE.fullmatch(text)
    if found is None or not 0 < int((found[3] or ":443")[1:]) < 1 << 16:
        raise ValueError(f"{_shown(text)} is none")
    scheme, host, port = found[1].lower(), found[2].lower(), found[3] or ""
    if scheme == "http" and not is_loopback(host.strip("[]")):
        raise ValueError(f"{_shown(text)} is read by everybody on its way")
    return f"{scheme}://{host}" + ("" if port == {"http": ":80", "https": ":443"}[scheme] else port)


def is_loopback(host: str) -> bool:
    """Of this machine alone, whatever a DNS server says (RFC 6761, 6.3)."""
    if host == "localhost":
        return True
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def _listen(value: Any) -> tuple[str, int] | None:
    """None: the Unix socket."""
    text = _text(value)
    if text == UNIX:
        return None
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", text)
    if found is None or not is_address(found[1] or found[2]):
        raise ValueError(f"{_shown(text)} is neither")
    return str(ipaddress.ip_address(found[1] or found[2])), _whole(1, 65535)(int(found[3]))


def _metrics(value: Any) -> tuple[str, int]:
    place = _listen(value)
    if place is not None and not is_loopback(place[0]):
        raise ValueError(f"{_shown(value)} is open to others than this machine")
    return place or AT_SOCKET


def _claim_path(value: Any) -> tuple[str, ...]:
    parts = tuple(_text(value).split("."))
    if len(parts) > 8 or "" in parts:
        raise ValueError(f"{_shown(value)} is no path of claims")
    return parts


def _host_port(value: Any) -> str:
    """As `enforcer.identity.metadata` compares it."""
    return _with_port(_HOST_PORT, value)


def _with_port(pattern: re.Pattern[str], value: Any) -> str:
    """Its second group is a colon and a port, or nothing."""
    text = _text(value)
    found = pattern.fullmatch(text)
    if found is None or not 0 < int((found[2] or ":443")[1:]) < 1 << 16:
        raise ValueError(f"{_shown(text)} is none")
    return text


def _provider(value: Any) -> str:
    """`local:` is the kernel's own."""
    text = _matching(_PROVIDER)(value)
    if text in ("local", "weir"):
        raise ValueError(f"{_shown(text)} is taken: subjects of this host begin with it")
    return text


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > LIST_LIMIT:
        raise ValueError(f"{_shown(value)} is not a table")
    return value


def _groups(value: Any) -> dict[str, str]:
    return {_text(name): NAME.parse(group) for name, group in _table(value).items()}


def _required(value: Any) -> dict[str, str | bool | int]:
    for name, wanted in _table(value).items():
        if not isinstance(wanted, str | bool | int):
            raise ValueError(f"{_shown(wanted)} of {name} is no text, number, true or false")
    return dict(value)


def _required_attributes(value: Any) -> dict[str, str]:
    return {name: _text(wanted) for name, wanted in _table(value).items()}


def _service_identity(value: Any) -> ServiceIdentity:
    table = _table(value)
    if "provider" not in table or not set(table) <= {"provider", "token_file"}:
        raise ValueError(f"{_shown(value)} does not name provider, or something else than token_file")
    file = _absolute(table["token_file"]) if "token_file" in table else None
    return ServiceIdentity(_provider(table["provider"]), file)


UNIX: Final = "unix"
AT_SOCKET: Final = ("", 0)            # what it stands for where None is nowhere

MASKS: Final = ("redact", "partial", "hash", "null")

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA", "RS384", "RS512", "PS384", "PS512", "ES384", "ES512")

NAME: Final = Kind("a name of letters, digits, '.', '_' and '-', 64 at most", _matching(_NAME))
RUNTIME_NAME: Final = Kind("a name of lower-case letters, digits and '-', 16 at most, a letter first",
                           _matching(_RUNTIME))
ACCOUNT: Final = Kind("the name of a user or group of this host", _matching(_ACCOUNT))
UNIT: Final = Kind("the name of a service of systemd's, like crew.service", _matching(_UNIT))
UNIT_CREDENTIAL: Final = Kind("the name of a credential as LoadCredential= has it, without a slash",
                              _matching(_UNIT_CREDENTIAL))
LABEL: Final = Kind("lower-case words joined by '.', like pii.email", _matching(_LABEL))
TEXT: Final = Kind("a text", _text)
SELECTOR: Final = Kind("a name, or '*' for every one", _selector)
PATH: Final = Kind("an absolute path", _absolute)
SOCKET: Final = Kind("the absolute path of a Unix socket, 107 bytes at most", _socket)
DIALLED: Final = Kind("the path of a Unix socket below /run, /var/run, /tmp or /var/tmp", _dialled)
HOME_PATH: Final = Kind("an absolute path, or one that begins with ~/", _home_path)
COMMAND: Final = Kind("a list: the absolute path of a program, then its arguments", _command)
BOOLEAN: Final = Kind("true or false", _boolean)
PORT: Final = Kind("a whole number from 1 to 65535", _whole(1, 65535))
HIGH_PORT: Final = Kind("a whole number from 1024 to 65535", _whole(1024, 65535))
ADDRESS: Final = Kind("an IPv4 or IPv6 address", _address)
HOST: Final = Kind("a host name, or an IPv4 or IPv6 address", _host)
EGRESS_HOST: Final = Kind("a host name, an IPv4 or IPv6 address, or *.NAME where NAME has two labels or more and is no "
                          "registry's", _egress_host)
LOOPBACK: Final = Kind("an address of 127.0.0.0/8", _loopback)
RESOLVER: Final = Kind("an address, ADDRESS:PORT or [ADDRESS]:PORT", _resolver)
PROVIDER_NAME: Final = Kind("a name of lower-case letters, digits and '-', 32 at most, a letter first, and not `local`",
                           _provider)
ISSUER: Final = Kind("an https URL without query or fragment", _issuer)
HOST_PORT: Final = Kind("HOST or HOST:PORT", _host_port)
ENTITY: Final = Kind("a URI, like urn:weir:lab or an https URL", _entity)
HTTPS: Final = Kind("an https URL", _https)
PAGE: Final = Kind("https://HOST, https://HOST:PORT, or with http an address of this machine's own, like "
                  "http://127.0.0.1:8443", _page)
LISTEN: Final = Kind("`unix`, ADDRESS:PORT or [ADDRESS]:PORT", _listen)
METRICS: Final = Kind("`unix`, or ADDRESS:PORT or [ADDRESS]:PORT of a loopback address", _metrics)
SCOPE: Final = Kind("a scope's name", _matching(_SCOPE))
VAULT_PATH: Final = Kind("a path like crews/orders, without a slash at its ends", _matching(_VAULT_PATH))
CLAIM_PATH: Final = Kind('a claim\'s name, or several with dots between them, like "realm_access.roles"', _claim_path)
GROUPS: Final = Kind("a table, each a value of the claim and the name of a group", _groups)
REQUIRED_ATTRIBUTES: Final = Kind("a table, each an attribute and its text", _required_attributes)
REQUIRED_CLAIMS: Final = Kind("a table, each a claim and its text, number, true or false", _required)
SERVICE_IDENTITY: Final = Kind('a table like { provider = "corp", token_file = "/run/spire/crew.jwt" }',
                              _service_identity)
COLUMN: Final = Kind('"schema.table.column"', _column)
MASK: Final = Kind("one of redact, partial, hash, null, constant:TEXT", _mask)


def count(least: int, most: int) -> Kind:
    return Kind(f"a whole number from {least} to {most}", _whole(least, most))


def duration(least: str, most: str) -> Kind:
    parse = _quantity(_SECONDS, 0, 1 << 40)
    return Kind(f'a time like "30s", "15m" or "2h", from {least} to {most}',
                _quantity(_SECONDS, parse(least), parse(most)))


def size(least: str, most: str) -> Kind:
    parse = _quantity(_BYTES, 0, 1 << 60)
    return Kind(f'a size like "64MiB" or "1GiB", from {least} to {most}', _quantity(_BYTES, parse(least), parse(most)))


def choice(*names: str) -> Kind:
    return Kind(f"one of {', '.join(names)}", _choice(names))


def several(kind: Kind, *, least: int = 0) -> Kind:
    """A list without repetitions; given on as a tuple."""

    def parse(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not least <= len(value) <= LIST_LIMIT:
            raise ValueError(f"{_shown(value)} is not a list" + (f" of at least {least}" if least else "")
                             + _bracketed(value, kind))
        parsed = tuple(kind.parse(one) for one in value)
        if len(set(parsed)) != len(parsed):
            raise ValueError(f"{_shown(value)} names the same twice")
        return parsed

    return Kind(f"a list, each {kind.right}", parse)


def _bracketed(value: Any, kind: Kind) -> str:
    """How one value that would do is written as a list, or empty."""
    if not isinstance(value, str | int):
        return ""
    try:
        kind.parse(value)
    except ValueError:
        return ""
    return f": write [{json.dumps(value)}]"
