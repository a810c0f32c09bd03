"""docs/reference-recording.md: events, tables and views, and the names of events that say what they are by a name."""
from __future__ import annotations

import ast
import inspect
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from reference import meanings

from agent.status import BLOCKED, DEGRADED, ENFORCING, STARTING, STOPPING
from enforcer.recording import schema

ROOT = Path(__file__).resolve().parents[2]
TELLING = ("tell", "_tell", "record", "make_event", "_end", "reading")
MEMORY = ("position", "live", "live_operation")
_HEAD = """\
# Events, tables and views

<!-- Made by `make docs` from enforcer/words/events.py, enforcer/recording/schema.py and whoever tells events. -->

What a recording holds. [recording.md](recording.md) says how it is chained and signed and what the columns mean,
[auditor.md](auditor.md) has questions and their queries. `at` is nanoseconds UTC, `monotonic` nanoseconds since boot.
"""
_FIELD = re.compile(r"^    (\w+): ([^=#]+?)(?: = [^#]+?)?(?:\s+# (.*))?$")
_DOTTED = re.compile(r"[a-z]+([.-][a-z-]+)*")
Said = dict[str, tuple[set[str], set[str]]]       # name of an event -> keys of its detail, modules that tell it


def render_page() -> str:
    return "".join((
        _HEAD, _events(), _tables(), _views(),
        _named("Host events", "`host_event.name`, and the keys of `detail`, as far as they stand where it is told. The "
               "agent tells them; `<...>` stands for what differs.", host_events(), meanings.HOST),
        _named("Events of the recorder", "`recorder_event.name`, and the keys of `detail`.", recorder_events(),
               meanings.RECORDER)))


def _events() -> str:
    parts = ["\n## Events\nFields in the order in which they are in the canonical bytes.\n"]
    for kind, (table, _) in schema.SPOKEN.items():
        struct = schema.STRUCTS[kind]
        about = " ".join((struct.__doc__ or "").split()) if struct.__doc__ else ""
        head = f"\n### {struct.__name__}\nKind {kind}, table `{table}`. {about}".rstrip()
        rows = (f"| `{name}` | {kind_of} | {said} |\n" for name, kind_of, said in fields(struct))
        parts.append(f"{head}\n\n| field | type | |\n|---|---|---|\n" + "".join(rows))
    return "".join(parts)


def fields(struct: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """Name, type and what stands beside it in the source."""
    found: list[list[str]] = []
    for line in inspect.getsource(struct).splitlines():
        if match := _FIELD.match(line):
            found.append([match[1], match[2].replace("|", "\\|"), match[3] or ""])
        elif found and (more := re.match(r"^ {20,}# (.*)$", line)):
            found[-1][2] += " " + more[1]
    assert [name for name, _, _ in found] == list(struct.__struct_fields__), struct
    for name, kind, said in found:
        yield name, kind, said.replace("|", "\\|")


def _objects(what: str) -> dict[str, list[tuple[str, str]]]:
    with closing(sqlite3.connect(":memory:")) as made:
        for statement in schema.SCHEMA:
            made.execute(statement)
        names = [name for (name,) in made.execute(
            "SELECT name FROM sqlite_master WHERE type = ? ORDER BY rowid", (what,)) if name not in MEMORY]
        return {name: [(row[1], row[2]) for row in made.execute(f"PRAGMA table_info({name})")] for name in names}


def _tables() -> str:
    rows = [f"| `{name}` | {', '.join(f'{column} {kind}' for column, kind in columns)} |\n"
            for name, columns in _objects("table").items()]
    return "\n## Tables\n| table | columns |\n|---|---|\n" + "".join(rows)


def _views() -> str:
    rows = [f"| `{name}` | {', '.join(column for column, _ in columns)} |\n"
            for name, columns in _objects("view").items()]
    about = "For people: ISO times, words in place of numbers."
    return f"\n## Views\n{about}\n\n| view | columns |\n|---|---|\n" + "".join(rows)


def _named(title: str, about: str, said: Said, meanings: dict[str, str]) -> str:
    rows = [f"| `{name}` | {meanings.get(name, '')} | {_code(keys)} | {_code(where)} |\n"
            for name, (keys, where) in sorted(said.items())]
    return f"\n## {title}\n{about}\n\n| name | says | detail | told by |\n|---|---|---|---|\n" + "".join(rows)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{one}`" for one in sorted(names))


def host_events() -> Said:
    found = _told(sorted((ROOT / "agent").rglob("*.py")))
    for state in (STARTING, ENFORCING, DEGRADED, BLOCKED, STOPPING):
        found[state][0].add("reason")
        found[state][1].add("agent/supervisor.py")
    return found


def recorder_events() -> Said:
    return _told(sorted((ROOT / "enforcer/recording").glob("*.py")))


def _told(paths: list[Path]) -> Said:
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}
    own = {where.removesuffix(".py").replace("/", "."): dict(_constants(tree)) for where, tree in trees.items()}
    found: Said = defaultdict(lambda: (set(), set()))
    for where, tree in trees.items():
        seen = {**_imported(tree, own), **own[where.removesuffix(".py").replace("/", ".")]}
        helper = {key for node in tree.body if isinstance(node, ast.ClassDef) for one in node.body
                  if isinstance(one, ast.FunctionDef) and one.name == "_tell" for key in _written(one)}
        for call, made, local in _calls(tree):
            for name in _names(call, {**seen, **local}):
                found[name][0].update(_keys(call, made), helper if _called(call) == "_tell" else ())
                found[name][1].add(where)
    return found


def _imported(tree: ast.Module, own: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """`NAME` of `from module import NAME`, and `module.NAME`."""
    found: dict[str, list[str]] = {}
    for node in (one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)):
        for alias in node.names:
            called, module = alias.asname or alias.name, own.get(f"{node.module}.{alias.name}", {})
            found |= {f"{called}.{name}": texts for name, texts in module.items()}
            if texts := own.get(node.module or "", {}).get(alias.name):
                found[called] = texts
    return found


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, dict[str, set[str]], dict[str, list[str]]]]:
    """Where something is told, with the keys, and the texts, of what its function puts into variables before."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            made: dict[str, set[str]] = defaultdict(set)
            local = dict(_constants(function))
            for node in ast.walk(function):
                for target in _targets(node):
                    held = target.value if isinstance(target, ast.Subscript) else target
                    if isinstance(held, ast.Name):
                        made[held.id] |= _written(node)
                        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                            made[held.id].add(str(target.slice.value))
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _called(node) in TELLING:
                    yield node, made, local


def _targets(node: ast.AST) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(
        node, ast.AnnAssign | ast.AugAssign) else []


def _constants(tree: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, list[str]]]:
    """Names that a module, or a function, gives to texts, by one or several."""
    for node in tree.body:
        value = getattr(node, "value", None)
        for target in _targets(node):
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                for one, text in zip(target.elts, value.elts, strict=True):
                    if isinstance(one, ast.Name) and (texts := _texts(text)):
                        yield one.id, texts
            elif isinstance(target, ast.Name) and value is not None and (texts := _texts(value)):
                yield target.id, texts


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _names(call: ast.Call, constants: dict[str, list[str]]) -> list[str]:
    for argument in call.args[:2]:
        names = _texts(argument)
        if not names:
            held = argument.value if isinstance(argument, ast.Subscript) else argument
            names = constants.get(ast.unparse(held), [])
        if names and all(_DOTTED.fullmatch(re.sub(r"<\w+>", "x", one)) for one in names):
            return names
    return []


def _texts(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if node.value else []
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    if isinstance(node, ast.Dict):
        return [text for value in node.values for text in _texts(value)]
    if isinstance(node, ast.JoinedStr):
        parts = [str(one.value) if isinstance(one, ast.Constant) else f"<{_held(one)}>" for one in node.values]
        return ["".join(parts)]
    return []


def _held(node: ast.AST) -> str:
    value = getattr(node, "value", node)
    return str(getattr(value, "attr", getattr(value, "id", "name"))).removeprefix("_")


def _keys(call: ast.Call, made: dict[str, set[str]]) -> set[str]:
    """Of the detail, as far as it is written in the function that tells it."""
    found = {one.arg for one in call.keywords if one.arg and one.arg not in ("workload", "detail")}
    for argument in (*call.args[1:], *(one.value for one in call.keywords)):
        found |= _written(argument)
        for node in ast.walk(argument):
            if isinstance(node, ast.Name):
                found |= made.get(node.id, set())
    return found


def _written(within: ast.AST) -> set[str]:
    """Keys of the tables that are written there."""
    return {key.value for node in ast.walk(within) if isinstance(node, ast.Dict) for key in node.keys
            if isinstance(key, ast.Constant) and isinstance(key.value, str)}
