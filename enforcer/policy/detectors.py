"""Content detectors: what looks like a secret, a card or an account number, wherever it stands.  Pure.

Each finds a *head* that everybody may see ("ghp_", "://ada:", the first six digits of a card) and masks the *body*
after it.  So nothing of a stream has to wait but what stands behind a whole head (stream_masks.py).  Hyperscan says
which shapes a text may hold, of numbers in two passes, the first coarse and fast; Python's own expressions say where,
and checksums whether.  What Hyperscan cannot say (look-behind, what goes on without end) is not asked of it: it may say
too much, never too little.

Sources: RFC 7468 (BEGIN ... PRIVATE KEY), RFC 7519 and 7515 (JWT), RFC 3986 3.2.1 (userinfo), ISO/IEC 7812-1 annex B
(Luhn), ISO 13616 and SWIFT's IBAN registry (lengths); GitHub, "Behind GitHub's new authentication token formats"; AWS
IAM, "Unique identifiers"; Slack, "Token types".
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import Final, NamedTuple

from enforcer.policy.checksums import IBANS, is_card, is_iban
from enforcer.policy.scanner import Scanner

LONGEST: Final = 4100                 # bytes that head and body of what is not decided may have
RUN: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"      # whose beginning is looked for
SURE: Final = 4                       # bytes of a body after a head that nothing else has
HEADER: Final = 10                    # of a JWT, whose head is not that rare
KEY: Final = 16 << 10                 # bytes after BEGIN that are masked where no END comes


class Shape(NamedTuple):
    """One form of what a detector finds.  `whole` and `begun` (anchored at the end) have the group `m`: the body, which
    has a byte at least in `begun`."""

    detector: str
    label: str
    sought: bytes                     # Hyperscan's: somewhere in everything that `whole` finds
    whole: re.Pattern[bytes]
    begun: re.Pattern[bytes]          # may become `whole`
    reach: int                        # bytes that `begun` may have,
    ends: re.Pattern[bytes]           # and one of these is the last
    more: re.Pattern[bytes] | None = None      # goes on, masked, as long as this
    check: Callable[[bytes], bool] | None = None       # of all that `whole` finds
    known: Callable[[bytes], int] = len        # bytes of a body that is not decided that are masked all the same
    until: re.Pattern[bytes] | None = None     # masked until the end of this, or for KEY bytes
    hint: re.Pattern[bytes] | None = None      # found wherever `begun` is: of many shapes the same
    letters: bytes = b""              # all that `begun` is made of, where that is little


class Found(NamedTuple):
    start: int
    end: int                          # of the body
    shape: Shape
    head: int = 0                     # where all of it begins


NEAR: Final = 16                      # bytes: more than any head of a token whose body goes on has
_IBAN: Final = re.compile(rb"(?<![A-Z0-9])[A-Z]{2}[0-9]{2}[A-Z0-9 ]{1,40}\Z")
_CARD: Final = re.compile(rb"(?<![0-9])[2-6][0-9]{3}[0-9 -]{3,18}\Z")
_NO_WORD: Final = b"(?<![A-Z0-9])"
_IBAN_ENDS: Final = re.compile(b"[A-Z0-9 ]")
_CARD_ENDS: Final = re.compile(b"[0-9 -]")


def _sure(body: bytes) -> int:
    return len(body) if len(body) >= SURE else 0


def _token(
    detector: str, label: str, head: bytes, letters: bytes, least: int, goes_on: bool, widest: int = 16,
) -> Shape:
    body = b"[%s]" % letters
    return Shape(
        detector, label, head, re.compile(b"%s(?P<m>%s{%d})" % (head, body, least)),
        re.compile(rb"%s(?P<m>%s{1,%d})\Z" % (head, body, least - 1)), widest + least, re.compile(body),
        re.compile(b"%s*" % body) if goes_on else None, known=_sure)


def _token_s_header(body: bytes) -> int:
    return len(body) if len(body) >= HEADER else 0


def _address(body: bytes) -> int:
    """A password before a host, or what may be a host and its port."""
    at = body.rfind(b"@")
    return at if at >= 0 else 0 if body.isdigit() else len(body)


def _number(body: bytes) -> int:
    """Any number may be a card's as long as its checksum is not known."""
    return 0


def _iban(countries: list[str], rest: int) -> tuple[bytes, bytes, bytes]:
    """(head, body, body so far) of the countries whose numbers have `rest` letters and digits after the fourth."""
    groups, odd = divmod(rest, 4)
    sizes = [4] * groups + [odd] * (odd > 0)
    body = b"".join(b" ?[A-Z0-9]{%d}" % size for size in sizes)
    so_far = b""
    for size in reversed(sizes):
        inner = b" ?(?:[A-Z0-9]{0,%d}|[A-Z0-9]{%d}%s)" % (size - 1, size, so_far)
        so_far = b"(?:%s)" % inner
    return _NO_WORD + b"(?:%s)[0-9]{2}" % "|".join(countries).encode(), body, so_far


def _ibans() -> Iterator[Shape]:
    for length in sorted(set(IBANS.values())):
        head, body, so_far = _iban([name for name, size in IBANS.items() if size == length], length - 4)
        yield Shape(
            "iban", "pii.iban", head[len(_NO_WORD):] + rb" ?[A-Z0-9]{4} ?[A-Z0-9]{3}",
            re.compile(b"%s(?P<m>%s)(?=[^A-Z0-9])" % (head, body)),
            re.compile(rb"%s(?P<m>(?=.)%s)\Z" % (head, so_far)), 48, _IBAN_ENDS, check=is_iban, known=_number,
            hint=_IBAN)


def _cards() -> Iterator[Shape]:
    """Without gaps, and in groups of 4-4-4-4, 4-6-5 and 4-6-4 with one blank or hyphen between."""
    yield Shape(
        "card-number", "pci.card-number", b"[2-6][0-9]{12}",
        re.compile(b"(?<![0-9])[2-6][0-9]{5}(?P<m>[0-9]{7,13})(?=[^0-9])"),
        re.compile(rb"(?<![0-9])[2-6][0-9]{5}(?P<m>[0-9]{1,13})\Z"), 24, _CARD_ENDS, check=is_card, known=_number,
        hint=_CARD)
    for gap in (b" ", b"-"):
        for groups in ((2, 4, 4), (4, 5), (4, 4)):
            first, *others = groups
            head = b"(?<![0-9])[2-6][0-9]{3}%s[0-9]{2}" % gap
            body = b"[0-9]{%d}" % first + b"".join(b"%s[0-9]{%d}" % (gap, size) for size in others)
            so_far = b""
            for size in reversed(others):
                so_far = b"(?:%s(?:[0-9]{0,%d}|[0-9]{%d}%s))?" % (gap, size - 1, size, so_far)
            begun = b"(?:[0-9]{0,%d}|[0-9]{%d}%s)" % (first - 1, first, so_far)
            yield Shape(
                "card-number", "pci.card-number", b"[2-6][0-9]{3}%s[0-9]{4,6}%s[0-9]{4}" % (gap, gap),
                re.compile(b"%s(?P<m>%s)(?=[^0-9])" % (head, body)),
                re.compile(rb"%s(?P<m>(?=.)%s)\Z" % (head, begun)), 24, _CARD_ENDS, check=is_card,
                known=_number, hint=_CARD)


# RFC 7468 2; RFC 4716 3.2 has four hyphens and blanks.
_KEY_LINE: Final = (rb"(?:-----%s [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|"
                    rb"---- %s [A-Z0-9 ]{0,40}PRIVATE KEY ----)")
_KEY_HEAD: Final = _KEY_LINE % (b"BEGIN", b"BEGIN")
_SECRET: Final = rb"(?i:aws_?secret_?(?:access_?)?key[\"']?[ \t]{0,3}[=:][ \t]{0,3}[\"']?)"
_SESSION: Final = rb"(?i:aws_?session_?token[\"']?[ \t]{0,3}[=:][ \t]{0,3}[\"']?)"
# RFC 3986 3.2.1: what may stand in a password, and what people put there as it is.
_PASSWORD: Final = rb"[^\x00-\x20\x7f/?#@\"'<>\\]"
_WITH_AT: Final = rb"[^\x00-\x20\x7f/?#\"'<>\\]"
_LOGIN: Final = rb"://[^\x00-\x20\x7f/?#@\"'<>\\:]{0,64}:"
_JWT: Final = rb"[A-Za-z0-9_-]"
# Only where a run of such letters begins, else each "eyJ" of a long one is tried to its end.
_JWT_AT: Final = rb"(?:\A|(?<![A-Za-z0-9_-]))"

SHAPES: Final = (
    Shape("private-key", "secret.private-key", _KEY_HEAD, re.compile(_KEY_HEAD + b"(?P<m>)"),
          re.compile(rb"(?!)(?P<m>)"), 80, re.compile(b"(?!)"),
          until=re.compile(_KEY_LINE % (b"END", b"END"))),
    _token("aws-key", "secret.aws-key", rb"A(?:KIA|SIA|BIA|CCA)", b"A-Z2-7", 16, False),
    _token("aws-key", "secret.aws-key", _SECRET, b"A-Za-z0-9/+", 40, False, 48),
    _token("aws-key", "secret.aws-key", _SESSION, b"A-Za-z0-9/+=", 40, True, 48),
    _token("google-key", "secret.google-key", b"AIza", b"0-9A-Za-z_-", 35, False),
    _token("google-key", "secret.google-key", b"GOCSPX-", b"0-9A-Za-z_-", 28, False),
    _token("google-key", "secret.google-key", rb"ya29\.", b"0-9A-Za-z_-", 20, True),
    _token("github-token", "secret.token.github", b"gh[pousr]_", b"A-Za-z0-9", 36, True),
    _token("github-token", "secret.token.github", b"github_pat_", b"A-Za-z0-9_", 36, True),
    _token("slack-token", "secret.token.slack", b"xox[abceoprs]-", b"A-Za-z0-9-", 10, True),
    _token("slack-token", "secret.token.slack", b"xapp-", b"A-Za-z0-9-", 10, True),
    # RFC 7515 3.1: the header is a JSON object, which is "eyJ" in base64url; 7.2 and appendix F: the payload may be "".
    Shape("jwt", "secret.token.jwt", rb"eyJ%s{10,}\." % _JWT,
          re.compile(rb"%s(?=%s{13,4000}+\.)%s*?eyJ(?P<m>%s{10,}+\.(?:\.|%s{4}))" % (_JWT_AT, *[_JWT] * 4)),
          re.compile(rb"%s(?=%s*+(?:\.%s{0,3}+)?\Z)%s*?eyJ(?P<m>%s{1,4000}+|%s{10,4000}+\.%s*+)\Z" % (
              _JWT_AT, *[_JWT] * 6)), 4012,
          re.compile(rb"[A-Za-z0-9_.-]"), re.compile(rb"[A-Za-z0-9_.-]*"), known=_token_s_header,
          letters=RUN + b"."),
    Shape("password-in-url", "secret.password", _LOGIN + _WITH_AT + b"{1,256}@",
          re.compile(rb"%s(?=%s{1,256}[\x00-\x20\x7f/?#\"'<>\\])(?P<m>%s+)@%s*" % (
              _LOGIN, _WITH_AT, _WITH_AT, _PASSWORD)),
          re.compile(rb"%s(?P<m>%s{1,256})\Z" % (_LOGIN, _WITH_AT)), 330, re.compile(_WITH_AT),
          known=_address),
    *_cards(),
    *_ibans(),
)
DETECTORS: Final = tuple(dict.fromkeys(shape.detector for shape in SHAPES))
LABELS: Final = {shape.detector: shape.label for shape in SHAPES}
# What `whole` and `begun` of every shape begin with.
_HEADS: Final = (
    *(shape.sought for shape in SHAPES if shape.hint is None and shape.detector not in ("jwt", "password-in-url")),
    b"eyJ", b"://", rb"[2-6][0-9]{3}[0-9 -]{3}", rb"[A-Z]{2}[0-9]{2}[A-Z0-9 ]")
_COARSE: Final = (rb"[0-9]{4}[ -]?[0-9]{4}[ 0-9-]", rb"[A-Z][A-Z][0-9][0-9][ A-Z0-9]")


def labels_of(detectors: Iterable[str]) -> tuple[str, ...]:
    """Of these detectors, each once."""
    return tuple(dict.fromkeys(LABELS[name] for name in detectors))


class _Scanners(NamedTuple):
    """Of all shapes, by their place in SHAPES: one set of them takes a third of a second to be compiled."""

    heads: Scanner
    fine: Scanner
    coarse: Scanner                   # which numbers are looked for at all
    numbers: Scanner


@cache
def _scanners() -> _Scanners:
    sought = [(shape.sought, at) for at, shape in enumerate(SHAPES)]
    return _Scanners(
        Scanner([(one, 0) for one in _HEADS]),
        Scanner([one for one in sought if SHAPES[one[1]].hint is None]), Scanner([(one, 0) for one in _COARSE]),
        Scanner([one for one in sought if SHAPES[one[1]].hint]))


class Detectors:
    """Those of some labels.  `search` gives what they find; `tail` what may be the beginning of more."""

    def __init__(self, labels: frozenset[str]) -> None:
        self.shapes = tuple(shape for shape in SHAPES if shape.label in labels)
        self._known = frozenset(at for at, shape in enumerate(SHAPES) if shape.label in labels)
        self._numbers = any(shape.hint for shape in self.shapes)
        self._scanners = _scanners()
        self._ending = [tuple(shape for shape in self.shapes if shape.ends.match(bytes((last,))))
                        for last in range(256)]

    def may_hold(self, text: bytes) -> bool:
        """Of many short texts: where not, neither `suspects` nor `tail` finds anything."""
        return bool(self._scanners.heads.scan(text))

    def suspects(self, text: bytes) -> list[Shape]:
        """What may be in it."""
        found = self._scanners.fine.scan(text)
        if self._numbers and self._scanners.coarse.scan(text):
            found |= self._scanners.numbers.scan(text)
        return [SHAPES[at] for at in sorted(found & self._known)]

    def search(self, text: bytes, start: int = 0, since: int = 0) -> list[Found]:
        """Every match that ends after `since`, also those that lie in each other.  `start`: of text that goes on, what
        is before it is seen as the end of a word only."""
        return [found for shape in self.suspects(text) for found in _matches(
            shape, text, max(start if shape.hint else 0, since - shape.reach - NEAR))]

    def tail(self, text: bytes, start: int = 0) -> list[Found]:
        """What may become a match if more comes, of each shape the longest."""
        found: list[Found] = []
        hints: dict[re.Pattern[bytes], bool] = {}
        for shape in self._ending[text[-1]] if text else ():
            if shape.hint is not None:
                if shape.hint not in hints:
                    hints[shape.hint] = shape.hint.search(text, max(start, len(text) - shape.reach)) is not None
                if not hints[shape.hint]:
                    continue
            since = max(start if shape.hint else 0, len(text) - shape.reach)
            match = shape.begun.search(text, max(since, len(text.rstrip(shape.letters))) if shape.letters else since)
            if match is not None:
                found.append(Found(match.start("m"), len(text), shape, match.start()))
        return found


def _matches(shape: Shape, text: bytes, start: int) -> Iterator[Found]:
    match = shape.whole.search(text, start)
    while match is not None:
        if shape.check is None or shape.check(match[0]):
            yield Found(match.start("m"), match.end("m"), shape, match.start())
        after = match.start() + 1
        if shape.more is not None and (run := shape.more.match(text, match.end())) is not None:
            after = max(after, run.end() - NEAR)       # what begins before that lies in it
        match = shape.whole.search(text, after)


@lru_cache(maxsize=64)
def make_detectors(labels: frozenset[str]) -> Detectors:
    """Compiled once for each set."""
    return Detectors(labels)
