"""Pure: a process's arguments as they may be recorded, with what looks like a secret masked.

Arguments are read from /proc by the root side (agent/workload/facts.py) and go from there into attribution, recording,
replay and `weir status`; here is the one place where secrets are taken out of them.  What is doubtful is masked: too
much hidden costs an auditor a word, too little is a password in a recording that nobody may change.

A crew chooses its arguments: each pass looks at a character a bounded number of times, and no pattern can run over the
same characters from many beginnings.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

MASK: Final = "***"

# A name ends with one of these: PGPASSWORD, sslpassword, --api-key, client_secret, X-Vault-Token.
_NAMES: Final = (r"(?:password|passwd|passphrase|pass|pwd|secret|token"
                 r"|(?:api|access|account|auth|encryption|master|private|secret|service|shared)[_-]?key)[0-9]*")
_PAIR: Final = re.compile(_NAMES + r"(?:[\\\"'`\])}]*\s*(?:=>|:=|=|:)|(?P<gap>\s+))\s*", re.IGNORECASE)
_FLAG: Final = re.compile(r"--?(?!-?no-)[\w.-]*?" + _NAMES, re.IGNORECASE)
_NAME: Final = re.compile(r"[\w.=-]*")             # what may stand before a pair that is the whole argument
_CONNINFO: Final = re.compile(        # libpq, 34.1.2: what follows a password without quotes
    r"\s(?:host|hostaddr|port|dbname|user|options|application_name|client_encoding|connect_timeout|channel_binding|"
    r"gssencmode|keepalives|krbsrvname|passfile|replication|require_auth|service|ssl[a-z]+|target_session_attrs)\s*=")
_AUTHORIZATION: Final = re.compile(
    r"authorization[\\\"']*\s*[:=][\s\\\"']*(?:(?:apikey|basic|bearer|digest|negotiate|token)\s+)?", re.IGNORECASE)
_BEARER: Final = re.compile(r"\bbearer\s+", re.IGNORECASE)
_HEADER_END: Final = re.compile(r"[\"'\r\n]")
_TOKEN_END: Final = re.compile(r"[\s\"']")
_WORD: Final = re.compile(r"\S+")
_KEY_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")

# Options of programs whose names do not say that a secret follows.  mysql(1): -p and the password in one word, behind
# options without a value.
_MYSQL: Final = re.compile(r"-[ABbCEfGgHIinNoqrsTtVvwWX]*p(?!\Z)")
_PROGRAMS: Final = {"curl": ("-u", "--user", "-U", "--proxy-user"), "redis-cli": ("-a",), "sshpass": ("-p",)}


def mask_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """As many as there were, each with its secrets as ***."""
    return tuple(_masked(arguments))


def _masked(arguments: Sequence[str]) -> Iterator[str]:
    program, before, whole = "", "", False
    for argument in arguments:
        program = _program(argument) or program
        if whole:
            yield MASK if argument else ""
        else:
            # A shell's or an interpreter's -c: a script, whose pairs end where its words do.
            script = len(arguments) == 1 or (before.startswith("-") and before.endswith("c"))
            yield mask_text(_mask_option(program, argument), script)
        before, whole = argument, not whole and _takes_secret(program, argument)


def _program(argument: str) -> str:
    """Of an argument that names one whose options are known here."""
    name = argument.rpartition("/")[2]
    return name if name in _PROGRAMS else "mysql" if name.startswith(("mysql", "mariadb")) else ""


def _takes_secret(program: str, argument: str) -> bool:
    return bool(_FLAG.fullmatch(argument)) or argument in _PROGRAMS.get(program, ())


def _mask_option(program: str, argument: str) -> str:
    if program == "mysql":
        found = _MYSQL.match(argument)
        return argument[:found.end()] + MASK if found else argument
    for flag in _PROGRAMS.get(program, ()):
        if argument.startswith(flag) and argument != flag and not flag.startswith("--"):
            return flag + MASK
        if argument.startswith(flag + "="):
            return f"{flag}={MASK}"
    return argument


def mask_text(text: str, script: bool = True) -> str:
    """One text; `script`: of several words, else one argument, whose value may hold spaces."""
    text = _mask_userinfo(_mask_keys(text), script)
    text = _mask_pairs(_mask_headers(text), script)
    return _mask_programs(text) if script else text


def _mask_keys(text: str) -> str:
    """PEM blocks (RFC 7468) of private keys; up to the end where theirs does not come."""
    parts, at = [], 0
    while found := _KEY_BEGIN.search(text, at):
        end = _KEY_END.search(text, found.end())
        parts += [text[at:found.end()], MASK, end.group() if end else ""]
        at = end.end() if end else len(text)
    return "".join([*parts, text[at:]])


def _mask_userinfo(text: str, script: bool) -> str:
    """`//user:password@` (RFC 3986, 3.2.1) of every URL."""
    if not script and (first := text.find("://")) >= 0 and _BEFORE_URL.fullmatch(text, 0, first):
        return _mask_urls(text)       # an argument that is a URL may hold spaces, as libpq allows
    return _WORD.sub(lambda word: _mask_urls(word.group()), text) if "://" in text else text


def _mask_urls(word: str) -> str:
    """The password ends at the last "@" before the path; where none comes before it, the password may hold a "/", as
    some drivers allow."""
    parts, done, at, last = [], 0, 0, word.rfind("@")
    while (at := word.find("://", at)) >= 0:
        begin = at + 3
        path = _PATH.search(word, begin)
        at = word.rfind("@", begin, path.start() if path else len(word))
        within = at >= 0
        at = at if within else last
        colon = word.find(":", begin, max(at, begin))
        # A forge's or an index's token stands in place of the user's name.
        token = within and word[max(0, begin - 8):begin].lower().endswith(("http://", "https://"))
        if colon >= 0 or token:
            parts += [word[done:colon + 1 if colon >= 0 else begin], MASK]
            done = at
        at = max(at, begin)
    return "".join([*parts, word[done:]])


_PATH: Final = re.compile(r"[/?#]")
_BEFORE_URL: Final = re.compile(r"[\w+.:=-]*")


def _mask_headers(text: str) -> str:
    """HTTP's Authorization (RFC 9110, 11.6.2) and bearer tokens without it (RFC 6750)."""
    for begins, ends in ((_AUTHORIZATION, _HEADER_END), (_BEARER, _TOKEN_END)):
        parts, at = [], 0
        while found := begins.search(text, at):
            end = ends.search(text, found.end())
            parts += [text[at:found.end()], MASK if found.end() < len(text) else ""]
            at = end.start() if end else len(text)
        text = "".join([*parts, text[at:]])
    return text


def _mask_pairs(text: str, script: bool) -> str:
    """name=value, name: value, "name": "value", ?name=value&, and in scripts --name value."""
    parts, at = [], 0
    while found := _PAIR.search(text, at):
        begin = found.end()
        if found["gap"] is not None and not _is_flag(text, found.start(), at):
            end = begin               # only a word of a text
        else:
            end = _value_end(text, found, script, at == 0)
        parts += [text[at:begin], MASK if end > begin else ""]
        at = end
    return "".join([*parts, text[at:]])


def _is_flag(text: str, name: int, least: int) -> bool:
    """Whether the word in which a name stands begins with a dash."""
    begin = name
    while begin > least and (text[begin - 1].isalnum() or text[begin - 1] in "_.-"):
        begin -= 1
    return text[begin:begin + 1] == "-" and not text[begin:begin + 6].lstrip("-").startswith("no-")


def _value_end(text: str, found: re.Match[str], script: bool, first: bool) -> int:
    begin, gap = found.end(), found["gap"] is not None
    if not gap and _QUERY.search(text[max(0, found.start() - 41):found.start()]):
        end = _QUERY_END.search(text, begin)
        return end.start() if end else len(text)
    if first and not script and not gap and _NAME.fullmatch(text, 0, found.start()):
        # The argument is this pair: an environment variable or an option, to its end, spaces and all.
        if not text[0].islower() or not text[:begin].islower():
            return len(text)
        if text[begin:begin + 1] not in ("'", '"'):
            more = _CONNINFO.search(text, begin)
            return more.start() if more else len(text)
    return _skip_value(text, begin)


_QUERY: Final = re.compile(r"[?&][\w.-]{0,40}\Z")
_QUERY_END: Final = re.compile(r"[&#\"'\s]")


def _skip_value(text: str, begin: int) -> int:
    """Over a value as shells, libpq, SQL, JSON and programming languages write it: quoted parts to their quote, what
    stands beside them to a space."""
    at = begin
    while at < len(text) and not text[at].isspace():
        opened = _first_quote(text, at)
        if opened > at and text[opened - 1] in "\"'`":
            at = _quoted_end(text, at, opened)
            if text[at:at + 1] in _AFTER:
                return at
        elif text[at] == "\\":
            at += 2
        else:
            at += 1
    return min(at, len(text))


_AFTER: Final = (",", ";", ")", "]", "}", "&")


def _first_quote(text: str, at: int) -> int:
    """Behind an opening quote, which a string around it may have escaped; `at` where there is none."""
    end = at
    while end < len(text) and text[end] == "\\" and end - at < 8:
        end += 1
    return end + 1 if end < len(text) and text[end] in "\"'`" else at


def _quoted_end(text: str, begin: int, opened: int) -> int:
    delimiter = text[begin:opened]
    if len(delimiter) > 1:            # \"...\": closed by the same
        end = text.find(delimiter, opened)
        return end + len(delimiter) if end >= 0 else len(text)
    at = opened
    while at < len(text) and text[at] != delimiter:
        at += 2 if text[at] == "\\" else 1
    return min(at + 1, len(text))


def _mask_programs(text: str) -> str:
    """mysql's -p and the like within a script."""
    parts, at, program, secret = [], 0, "", False
    for word in _WORD.finditer(text):
        bare = word.group().strip("\"'`();|&")
        program = _program(bare) or program
        parts.append(text[at:word.start()])
        parts.append(MASK if secret else _mask_option(program, word.group()))
        secret = not secret and word.group() in _PROGRAMS.get(program, ())
        at = word.end()
    return "".join([*parts, text[at:]])
