"""The second reading: tree-sitter-bash's.  Pure."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import tree_sitter
import tree_sitter_bash

from enforcer.protocols.ssh.shell.lexer import Run, Span

_LANGUAGE: Final = tree_sitter.Language(tree_sitter_bash.language())
_PARSER: Final = tree_sitter.Parser(_LANGUAGE)
_REDIRECTS: Final = ("file_redirect", "herestring_redirect", "heredoc_redirect")
_KEYWORDS: Final = ("declaration_command", "unset_command")


def parse(line: bytes) -> tuple[list[Run], bool]:
    """(simple commands in the order in which they begin, whether all of it is right).  Of what is wrong, as much as the
    parser makes of it.  Time is quadratic in the number of operators: the caller bounds it."""
    root = _PARSER.parse(line).root_node
    runs, redirections = [], []
    for node in _nodes(root):
        if node.type in _REDIRECTS:
            redirections.append(_redirection(node))
        elif words := _words(node):
            runs.append(Run(words, loop=node.type == "for_statement"))
    runs.sort(key=lambda run: run.words)
    return [*runs, Run(redirections=sorted(redirections, key=lambda one: one[1]))], not root.has_error


def alike(ours: list[Run], theirs: list[Run], text: str) -> bool:
    """The same words in the same commands, the same redirections."""
    return _form(ours, text) == _form(theirs, text)


def _form(runs: list[Run], text: str) -> tuple[list[tuple[bool, list[Span]]], list[tuple[str, Span]]]:
    commands = [(run.loop, _whole(run.words, text)) for run in runs if run.words]
    return sorted(commands), sorted(one for run in runs for one in run.redirections)


def _whole(words: list[Span], text: str) -> list[Span]:
    """A test in [ ] is a tree of its own there: only where it begins and ends is compared.  A lone - before a
    here-document is missing there."""
    begin, end = words[0][0], words[-1][1]
    if text[begin:begin + 1] == "[" and text[end - 1:end] == "]":
        return [(begin, end)]
    return [words[0], *(word for word in words[1:] if text[slice(*word)] != "-")]


def _nodes(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children


def _span(node: tree_sitter.Node) -> Span:
    return node.start_byte, node.end_byte


def _words(node: tree_sitter.Node) -> list[Span]:
    """Of a simple command, assignments and all; empty: it is none."""
    kind, parent = node.type, node.parent.type if node.parent else ""
    if kind == "command":
        return [_span(child) for child in node.children if child.type not in _REDIRECTS]
    if kind in _KEYWORDS:
        return [_span(child) for child in node.children if child.type not in _REDIRECTS]
    if kind == "variable_assignments":
        return [_span(child) for child in node.children]
    if kind == "variable_assignment" and parent not in ("command", "variable_assignments", *_KEYWORDS):
        return [_span(node)]
    if kind == "test_command":
        return [_span(node)]
    if kind == "for_statement":
        return [_span(child) for child in node.children if child.is_named and child.type not in (
            "do_group", "compound_statement", "comment")]
    return []


def _redirection(node: tree_sitter.Node) -> tuple[str, Span]:
    """(operator, operand); what else a here-document holds is found as nodes of its own."""
    operator = next((child.type for child in node.children if child.type[0] in "<>&"), "?")
    if node.type == "heredoc_redirect":
        operand = next((child for child in node.children if child.type == "heredoc_start"), node)
    else:
        operand = node.children[-1]
    return operator, _span(operand)
