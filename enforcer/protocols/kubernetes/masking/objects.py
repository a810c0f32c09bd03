"""Whatever an API server answers with, as values: masked in place."""
from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from agent.contract.target import Target
from enforcer.policy.masks import REDACTED
from enforcer.protocols.kubernetes.info import Info, Unclear
from enforcer.protocols.kubernetes.masking.detecting import Detecting
from enforcer.protocols.kubernetes.masking.labels import fields_of, is_config, is_secret
from enforcer.protocols.kubernetes.masking.managed import mask_managed
from enforcer.protocols.kubernetes.masking.places import find_places, mask_place, plain_text
from enforcer.protocols.kubernetes.masking.rules import ACCOUNT, LAST_APPLIED, REPEATS, TYPES, Rule, active_rules

STATUS: Final = ("v1", "Status")
TABLES: Final = (("meta.k8s.io/v1", "Table"), ("meta.k8s.io/v1beta1", "Table"))
TABLE: Final = frozenset(("kind", "apiVersion", "metadata", "columnDefinitions", "rows"))
AGES: Final = ("Age", "Created At")   # columns
_AGE: Final = re.compile("(?:[0-9]{1,6}[smhdy]){1,2}|<unknown>|<invalid>")     # duration.HumanDuration
DEPTH: Final = 4                      # annotations in annotations that are read
LEAST: Final = 6                      # letters of a masked value that is looked for where it may be repeated
PATIENCE: Final = 1 << 26             # letters of annotations that are gone through for them: some milliseconds
CALL: Final = 64                      # letters that would have taken as long as to begin
# field.Error, pkg/util/validation/field/errors.go: the value stands behind it, in Go's or JSON's notation, and behind
# that what a resource's own rules say of it.
_QUOTED: Final = re.compile("((?:Invalid|Unsupported|Duplicate) value:|Not found:|Too many:).*", re.DOTALL)


class ObjectMask:
    """For all answers to one request; it remembers the columns of a watch's tables.  `renews`: detectors begin anew
    with each object."""

    def __init__(self, info: Info, target: Target, masked: frozenset[str], renews: bool = True) -> None:
        self._renews = renews
        self._info, self._target, self._masked = info, target, masked
        self._columns: list[Any] | None = None
        # What cells only count: printers/internalversion, printSecret, printConfigMap.
        self._counted = ("data", "stringData", "binaryData") if is_secret(info) or is_config(info) else ()
        self._named = bool(fields_of(info, target))
        self._rules: dict[tuple[str, bool], tuple[Rule, ...]] = {}

    def mask(self, value: Any) -> Any:
        """An object, a list of them, a table or an error, masked."""
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Unclear("an answer that is not an object")
        kind = (value.get("apiVersion"), value.get("kind"))
        if kind == STATUS:
            self._error(value)
        elif kind in TABLES:
            self._table(value)
        items = value.get("items")
        if isinstance(items, list):
            value["items"] = [self.mask(one) if isinstance(one, dict) or _is_list(value) else one for one in items]
        return self.mask_one(value)

    def mask_event(self, value: Any) -> Any:
        """Of a watch: {"type": ..., "object": ...}."""
        if not isinstance(value, dict) or not value.keys() <= {"type", "object"}:
            raise Unclear("an event of a watch that is none")
        if "object" in value:
            value["object"] = self.mask(value["object"])
        return value

    def mask_row(self, row: Any) -> Any:
        """Of a table whose columns are known."""
        if not isinstance(row, dict) or not row.keys() <= {"cells", "conditions", "object"}:
            raise Unclear("a row of a table that is none")
        whole = row.get("object")
        rules = self.rules(whole if isinstance(whole, dict) else {})
        if any(rule.path[0] not in self._counted for rule in rules):
            row["cells"] = self._cells(row.get("cells"))
        if whole is not None:
            row["object"] = self.mask(whole)
        return row

    def set_columns(self, columns: Any) -> None:
        self._columns = columns if isinstance(columns, list) else None

    # an object

    def mask_one(self, value: dict[str, Any], depth: int = DEPTH, otherwise: str = "") -> dict[str, Any]:
        """`otherwise`: a Secret's `type` where the object does not say it."""
        rules, annotations = self.rules(value, otherwise), _annotations(value)
        hidden = sought(_texts(value, rules), annotations) if annotations else set()
        for rule in rules:
            mask_place(value, rule)
        if self._named:
            mask_managed(value.get("metadata"), rules)
        for name, text in annotations.items() if rules else ():
            if isinstance(text, str):
                annotations[name] = self.mask_annotation(name, text, _type(value) or otherwise, hidden, depth)
        return value

    def rules(self, value: dict[str, Any], otherwise: str = "") -> tuple[Rule, ...]:
        kind, account = _type(value) or otherwise, ACCOUNT in _annotations(value)
        key = kind if kind in TYPES else "", account
        rules = self._rules.get(key)
        if rules is None:
            rules = self._rules[key] = active_rules(self._info, self._target, self._masked, *key)
        for rule in rules if self._renews else ():
            if isinstance(rule.mask, Detecting):
                rule.mask.renew()
        return rules

    def mask_annotation(self, name: str, text: str, kind: str, hidden: set[str], depth: int = DEPTH) -> str:
        """Of an object that something is masked in; `kind`: of a Secret, its `type`."""
        if name in REPEATS:
            return REDACTED
        if name == LAST_APPLIED:
            return self._applied(text, kind, depth)
        return REDACTED if any(one in text for one in hidden) else text

    def _applied(self, text: str, kind: str, depth: int) -> str:
        """What says of itself that it is something else is not believed, and not there for who reads it."""
        try:
            value = msgspec.json.decode(text)
            if not isinstance(value, dict) or depth <= 0:
                return REDACTED
            if kind and _type(value) not in ("", kind):
                return "{}"
            return msgspec.json.encode(self.mask_one(value, depth - 1, kind)).decode("utf-8")
        except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
            return REDACTED

    # what is no object

    def _table(self, value: dict[str, Any]) -> None:
        if not value.keys() <= TABLE:
            raise Unclear("a table that has more than rows")
        if isinstance(value.get("columnDefinitions"), list) and value["columnDefinitions"]:
            self.set_columns(value["columnDefinitions"])
        rows = value.get("rows")
        if rows is not None:
            if not isinstance(rows, list):
                raise Unclear("a table without rows")
            value["rows"] = [self.mask_row(one) for one in rows]

    def _cells(self, cells: Any) -> list[Any]:
        """Which of an object's fields stands in a cell is not said: only names and times are shown."""
        if not isinstance(cells, list):
            return []
        columns = self._columns or []
        return [cell if at < len(columns) and _tells_nothing(columns[at], at, cell) else _hide(cell)
                for at, cell in enumerate(cells)]

    def _error(self, value: dict[str, Any]) -> None:
        """A Status: what it quotes of values is not shown."""
        if "message" in value:
            value["message"] = hide_quoted(value["message"])
        details = value.get("details")
        causes = details.get("causes") if isinstance(details, dict) else None
        for one in causes if isinstance(causes, list) else ():
            if isinstance(one, dict):
                one["message"] = hide_quoted(one.get("message"))


def sought(hidden: set[str], annotations: dict[str, Any]) -> set[str]:
    """What annotations are searched for: all that is in each of them, where it would take too long."""
    letters = sum(CALL + len(text) for text in annotations.values() if isinstance(text, str))
    return {""} if len(hidden) * letters > PATIENCE else hidden


def hide_quoted(message: Any) -> str:
    if not isinstance(message, str):
        return ""
    found = _QUOTED.sub(rf"\1 {REDACTED}", message)
    return found if "map[" not in found and "{" not in found else REDACTED


def _annotations(value: dict[str, Any]) -> dict[str, Any]:
    metadata = value.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _is_list(value: dict[str, Any]) -> bool:
    """No object that has a name is one (meta/v1, ListMeta)."""
    metadata = value.get("metadata")
    return not (isinstance(metadata, dict) and metadata.get("name"))


def _texts(value: dict[str, Any], rules: tuple[Rule, ...]) -> set[str]:
    """What is masked in an object, as it is written there and as it is meant."""
    found = [(holder[key], rule.encoded) for rule in rules if rule.kind != "detect"
             for holder, key in find_places(value, rule.path) if isinstance(holder[key], str)]
    plain = [plain_text(text) for text, encoded in found if encoded]
    return {text for text in (*(text for text, _ in found), *plain) if len(text) >= LEAST}


def _type(value: dict[str, Any]) -> str:
    kind = value.get("type")
    return kind if isinstance(kind, str) else ""


def _tells_nothing(column: Any, at: int, cell: Any) -> bool:
    """The name is the first; a custom resource says itself what its other columns are."""
    if not isinstance(column, dict):
        return False
    if at == 0:
        return column.get("format") == "name"
    return column.get("name") in AGES and isinstance(cell, str) and _AGE.fullmatch(cell) is not None


def _hide(cell: Any) -> Any:
    return REDACTED if isinstance(cell, str) else None
