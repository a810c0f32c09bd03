"""Secrets, cards and accounts that are nobody's, for detectors: each with what must not be seen of it."""
from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

from enforcer.policy.checksums import IBANS, luhn

Secret = tuple[str, bytes, bytes]     # (detector, all of it, what must not be seen)
_WORD = string.ascii_letters + string.digits


def _some(dice: random.Random, letters: str, count: int) -> bytes:
    return "".join(dice.choice(letters) for _ in range(count)).encode()


def private_key(dice: random.Random) -> Secret:
    kind = dice.choice((b"", b"RSA ", b"EC ", b"OPENSSH ", b"ENCRYPTED "))
    end = dice.choice((b"\n", b"\r\n"))
    lines = [_some(dice, _WORD + "+/", 64) for _ in range(dice.randint(1, 6))]
    body = end.join(lines)
    return ("private-key", b"-----BEGIN %sPRIVATE KEY-----%s%s%s-----END %sPRIVATE KEY-----" % (
        kind, end, body, end, kind), lines[0])


def aws_key(dice: random.Random) -> Secret:
    if dice.random() < 0.5:
        body = _some(dice, string.ascii_uppercase + "234567", 16)
        return "aws-key", dice.choice((b"AKIA", b"ASIA")) + body, body
    body = _some(dice, _WORD + "/+", 40)
    return "aws-key", dice.choice((b"aws_secret_access_key = ", b'AWS_SECRET_ACCESS_KEY="')) + body, body


def google_key(dice: random.Random) -> Secret:
    body = _some(dice, _WORD + "_-", 35)
    return "google-key", b"AIza" + body, body


def github_token(dice: random.Random) -> Secret:
    body = _some(dice, _WORD, 36)
    return "github-token", dice.choice((b"ghp_", b"gho_", b"ghs_", b"github_pat_")) + body, body


def slack_token(dice: random.Random) -> Secret:
    body = b"%d-%d-%s" % (dice.randrange(10**11), dice.randrange(10**11), _some(dice, _WORD, 24))
    return "slack-token", dice.choice((b"xoxb-", b"xoxp-")) + body, body


def jwt(dice: random.Random) -> Secret:
    def part(content: bytes) -> bytes:
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    whole = b".".join((part(b'{"alg":"HS256","typ":"JWT"}'), part(b'{"sub":"%d"}' % dice.randrange(10**9)),
                       part(dice.randbytes(32))))
    return "jwt", whole, whole[3:]


def card_number(dice: random.Random) -> Secret:
    head, size = dice.choice((
        (b"4", 16), (b"52", 16), (b"34", 15), (b"6011", 16), (b"2221", 16), (b"4", 13), (b"36", 14)))
    digits = head + _some(dice, string.digits, size - len(head) - 1)
    digits += next(b"%d" % check for check in range(10) if luhn(digits + b"%d" % check))
    gap = dice.choice((b"", b"", b" ", b"-"))
    sizes = {16: (4, 4, 4, 4), 15: (4, 6, 5), 14: (4, 6, 4)}.get(size, (size,))
    groups, at = [], 0
    for one in sizes:
        groups.append(digits[at:at + one])
        at += one
    return "card-number", gap.join(groups), gap.join(groups)[-7:]


def iban(dice: random.Random) -> Secret:
    country, length = dice.choice([*IBANS.items()])
    body = _some(dice, string.digits, length - 4)
    numeric = int("".join(str(int(one, 36)) for one in body.decode() + country + "00"))
    plain = country.encode() + b"%02d" % (98 - numeric % 97) + body
    spaced = b" ".join(plain[at:at + 4] for at in range(0, length, 4)) if dice.random() < 0.5 else plain
    return "iban", spaced, spaced[-7:]


def password_in_url(dice: random.Random) -> Secret:
    body = _some(dice, string.ascii_letters + "!$%&*+-._~", dice.randint(6, 20))
    return "password-in-url", b"postgres://app:" + body + b"@db.example:5432/shop", body


MAKERS: dict[str, Callable[[random.Random], Secret]] = {
    "private-key": private_key, "aws-key": aws_key, "google-key": google_key, "github-token": github_token,
    "slack-token": slack_token, "jwt": jwt, "card-number": card_number, "iban": iban,
    "password-in-url": password_in_url,
}


def make_secret(seed: int) -> Secret:
    dice = random.Random(seed)
    return MAKERS[dice.choice([*MAKERS])](dice)
