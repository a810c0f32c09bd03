"""Pure: bytes that came -> a tree of elements, attributes and text, and of nothing else.

DTDs and entities are bombs, and ways to files and networks; of comments, CDATA and processing instructions two readers
may see two texts ("admin<!-- -->.evil" is signed as "admin.evil" and read as "admin").  No provider needs any of them
in a message: what has one is refused before a parser sees it.
"""
from __future__ import annotations

import re
from typing import Final

from lxml import etree

from enforcer.words.errors import AuthenticationError

DEEPEST: Final = 50                   # elements in each other
PREFIXES: Final = 100                 # in force at one place: each reading compares each with each
_DECLARATION: Final = re.compile(
    r"""(?i)<\?xml version=["']1\.0["'](?: encoding=["']utf-8["'])?(?: standalone=["'](?:yes|no)["'])?\s*\?>""")
_MARKUP: Final = re.compile(r"<[!?]")
_IDS: Final = ("ID", "Id", "id", "{http://www.w3.org/XML/1998/namespace}id")


class Malformed(AuthenticationError):
    pass


def parse_tree(raw: bytes, limit: int) -> etree._Element:
    """Raises Malformed.  UTF-8 alone: another encoding could hide markup from who looks for it."""
    if len(raw) > limit:
        raise Malformed(f"it is longer than {limit} bytes")
    try:
        text = raw.decode().lstrip()
    except UnicodeDecodeError:
        raise Malformed("it is not UTF-8") from None
    if found := _DECLARATION.match(text):
        text = text[found.end():]
    if _MARKUP.search(text):
        raise Malformed("it holds a DTD, a comment, CDATA or a processing instruction")
    try:
        root = etree.fromstring(text.encode(), _parser())
    except (etree.XMLSyntaxError, ValueError):
        raise Malformed("it is no XML") from None
    _check(root)
    return root


def _parser() -> etree.XMLParser:
    return etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


def _check(root: etree._Element) -> None:
    """Each ID once: a signature names what it signs by it.  An entity that nobody declared would cut a text in two."""
    seen: set[str] = set()
    for event, one in etree.iterwalk(root, events=("start", "comment", "pi")):
        if event != "start" or not isinstance(one.tag, str):
            raise Malformed("it holds something else than elements and text")
        for value in [one.get(name) for name in _IDS]:
            if value in seen:
                raise Malformed("an ID stands twice")
            if value is not None:
                seen.add(value)
    if any(True for _ in root.iter(etree.Entity)):
        raise Malformed("it holds an entity")
    _check_bounds(root)


def _check_bounds(root: etree._Element) -> None:
    depth = prefixes = 0
    for event, _ in etree.iterwalk(root, events=("start", "end", "start-ns", "end-ns")):
        depth += (event == "start") - (event == "end")
        prefixes += (event == "start-ns") - (event == "end-ns")
        if depth > DEEPEST or prefixes > PREFIXES:
            raise Malformed(f"it is deeper than {DEEPEST} elements, or has more than {PREFIXES} prefixes")


def render_tree(element: etree._Element) -> bytes:
    """With the namespaces around it, and without what comes after it."""
    found: bytes = etree.tostring(element, with_tail=False)
    return found
