"""What of a command line is not recorded: passwords where well-known programs take them.  Pure.

As with passwords in DDL, three stars stand in its place wherever the line is written down or shown: in the recording,
to approvers, in a chat.  Policy judges the line as it is, and so goes it to the server; the `forwarded` digest is of
that.

Only forms that are sure, and only short words without blanks, expansions or quotes inside: a script in a value stays to
be read, so nobody hides what is done by calling it a password.  What programs are told in ways of their own is recorded
as it was said.
"""
from __future__ import annotations

import re
from typing import Final

STARS: Final = "***"
LONGEST: Final = 64                   # characters of a password; what is longer is recorded
LINE: Final = 256                     # bytes of one that a program reads
FAR: Final = 100                      # characters between a program and its option
_NAME: Final = r"(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY)"
_LETTER: Final = r"[^\s'\"`$|&;<>()\\]"
_WORD: Final = rf"(?P<mark>['\"]?)(?P<value>{_LETTER}{{1,{LONGEST}}})(?P=mark)(?![^\s'\"|&;<>()@])"
_ON: Final = rf"\b[^|;&\n]{{0,{FAR}}}?\s"              # to one of its options
_FORMS: Final = tuple(re.compile(one, re.IGNORECASE) for one in (
    # Variables, also of env and of what is in quotes: PGPASSWORD=x, MYSQL_PWD=x, AWS_SECRET_ACCESS_KEY=x
    rf"\b(?:\w{{0,40}}{_NAME}\w{{0,20}}|MYSQL_PWD|SSHPASS|REDISCLI_AUTH)={_WORD}",
    rf"--(?:[a-z]{{1,20}}-){{0,2}}(?:pass|{_NAME.replace('_?', '-?')}|pwd)[= ](?!-){_WORD}",
    rf"\b(?:mysql|mariadb)[a-z_]{{0,20}}{_ON}-p{_WORD}",
    rf"\bsshpass{_ON}-p ?{_WORD}",
    rf"\bredis-cli{_ON}(?-i:-a) {_WORD}",
    rf"\bldap[a-z]{{3,10}}{_ON}(?-i:-w) ?{_WORD}",
    rf"\bcurl{_ON}(?:-u ?|--user[= ])['\"]?[^\s:'\"]{{1,{LONGEST}}}:{_WORD}",
    rf"\bpass(?:in|out)?[ =]pass:{_WORD}",
    rf"\bAuthorization: ?(?:Basic|Bearer|Token) {_WORD}",
    rf"\b[a-z][a-z0-9+.-]{{1,20}}://[^\s:/@'\"]{{0,{LONGEST}}}:(?P<mark>)(?P<value>[^\s/@'\"$`]{{1,{LONGEST}}})@",
    rf"\b(?:echo|printf)(?: -\w+)? {_WORD}(?:\\n)?['\"]? ?\| ?(?:sudo\b[^|;&\n]{{0,{FAR}}}? (?:-S|--stdin)\b)",
    rf"\b(?:echo|printf)(?: -\w+)? ['\"]?[^\s:'\"|]{{1,32}}:{_WORD}['\"]? ?\| ?(?:sudo )?chpasswd\b",
    rf"\b(?:PASSWORD|IDENTIFIED BY) (?P<mark>'|\"){{1}}(?P<value>[^\s'\"]{{1,{LONGEST}}})['\"]",
))

# Programs that are told to read a password from their input: its first line.
_ASKS: Final = re.compile(
    rf"\b(?:sudo{_ON}(?:-[A-Za-z]{{0,8}}S\b|--stdin\b)|passwd{_ON}--stdin\b|htpasswd{_ON}-[A-Za-z]{{0,8}}i)|"
    r"--password-stdin\b|--with-token\b|\bpassin stdin\b")


def hide(text: str) -> str:
    """The same, with stars."""
    for form in _FORMS:
        text = form.sub(_stars, text)
    return text


def hide_bytes(text: bytes) -> bytes:
    """Bytes that are no UTF-8 stay what they are."""
    return hide(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def asks(line: bytes) -> bool:
    """Whether the first line of what this reads is a password."""
    return _ASKS.search(line.decode("utf-8", "replace")) is not None


class FirstLine:
    """Of an input: stars in place of its first line, or of as much of it as is a password at most."""

    def __init__(self) -> None:
        self.hidden, self._over = 0, False

    def feed(self, data: bytes) -> bytes:
        if self._over:
            return data
        end = data.find(b"\n")
        size = min(len(data) if end < 0 else end, LINE - self.hidden)
        self.hidden += size
        self._over = end >= 0 or self.hidden >= LINE
        return b"*" * size + data[size:]


def _stars(found: re.Match[str]) -> str:
    start, end = found.span("value")
    whole = found.start()
    return found[0][:start - whole] + STARS + found[0][end - whole:]
