"""Settings: which may be given at startup, which are pinned because reading statements depends on them.

Source: PostgreSQL 15 documentation, 20 Server Configuration; 55.7 StartupMessage.
"""
from __future__ import annotations

import re
from typing import Final

TIMEOUT: Final = "statement_timeout"  # no text means anything else by it; it ends a hold

# Given at startup or by SET, without meaning for policy; everything else needs `sql:set` on that Setting.
STARTUP: Final = frozenset((
    "application_name", "bytea_output", "client_encoding", "client_min_messages", "datestyle", "extra_float_digits",
    "geqo", "idle_in_transaction_session_timeout", "intervalstyle", "jit", "lock_timeout", "search_path",
    "standard_conforming_strings", "statement_timeout", "timezone", "work_mem", "default_transaction_isolation",
    "default_transaction_read_only", "default_transaction_deferrable", "fallback_application_name",
    "synchronize_seqscans", "row_security", "idle_session_timeout", "tcp_keepalives_idle", "tcp_keepalives_interval",
    "tcp_keepalives_count", "tcp_user_timeout",
))
# Nothing that they may be set to changes what a later text means.
_WITHOUT_MEANING: Final = (STARTUP - {"search_path"}) | {
    "transaction_isolation", "transaction_read_only", "transaction_deferrable", "session characteristics",
    "transaction_snapshot", "enable_seqscan", "enable_indexscan", "enable_bitmapscan", "enable_hashjoin",
    "enable_mergejoin", "enable_nestloop", "enable_sort", "xmloption", "quote_all_identifiers", "check_function_bodies",
    "default_table_access_method", "default_tablespace", "default_toast_compression", "maintenance_work_mem",
    "restrict_nonsystem_relation_kind", "transaction_timeout", "random_page_cost", "max_parallel_workers_per_gather",
}
_PINNED: Final = {
    "client_encoding": frozenset(("utf8", "utf-8", "unicode", "")),
    "standard_conforming_strings": frozenset(("on", "true", "yes", "1", "t", "y")),
}
_WHY: Final = {
    "client_encoding": "Weir reads statements as UTF8: set client_encoding to UTF8",
    "standard_conforming_strings": "Weir reads statements with standard_conforming_strings = on",
}
_TIME: Final = re.compile(r"([0-9]{1,12})(ms|s|min|h|d|)", re.ASCII)
_UNITS: Final = {"": 1, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_NESTED: Final = "options inside of options are not carried by Weir"
_OPTION: Final = re.compile(r"(?:-c\s*|--)([A-Za-z_][A-Za-z0-9_.-]*)=((?:\\.|[^\s\\])*)\Z", re.ASCII)
# As the server splits them: pg_split_opts of postinit.c, isspace of the C locale.
_SPACES: Final = re.compile(r"(?<!\\)[ \t\n\v\f\r]+")


def pinned(name: str, value: str) -> str:
    """Why this setting cannot have this value, or "" where it may."""
    allowed = _PINNED.get(name.lower())
    return "" if allowed is None or value.strip().strip("'\"").lower() in allowed else _WHY[name.lower()]


def has_meaning(name: str) -> bool:
    """Whether what a later text means may depend on it.  Names with a dot are extensions' or a user's own."""
    return name.lower() not in _WITHOUT_MEANING and "." not in name


def parse_time(text: str) -> int:
    """Milliseconds of a setting's value as SHOW gives it ("0", "1500ms", "5s", "2min"): 20.1.1; 0 where it is none."""
    found = _TIME.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else 0


def is_pinned(name: str) -> bool:
    return name.lower() in _PINNED


def permitted(name: str, value: str) -> str:
    """Why a startup parameter is refused, or ""; `options` is read as the server's command line."""
    if name == "options":
        return _options(value)
    if name.lower() not in STARTUP:
        return f'startup parameter "{name}" is not carried by Weir'
    return pinned(name, value)


def _options(text: str) -> str:
    words = [word for word in _SPACES.split(text) if word]
    at = 0
    while at < len(words):
        word = words[at]
        if word == "-c" and at + 1 < len(words):
            at += 1
            word = f"-c {words[at]}"
        match = _OPTION.match(word)
        if match is None:
            return f'startup option "{word}" is not carried by Weir: give -c name=value'
        name = match[1].replace("-", "_").lower()          # ParseLongOption of guc.c
        reason = permitted(name, match[2].replace("\\", "")) if name != "options" else _NESTED
        if reason:
            return reason
        at += 1
    return ""
