"""Checksums of numbers that people have, against what only looks like one.  Pure."""
from __future__ import annotations

from typing import Final

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_GAPS: Final = b" -"

# SWIFT, IBAN registry: country and length.
IBANS: Final[dict[str, int]] = {
    name: length for length, names in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
        21: "CH CR HR LI LV", 22: "BG BH DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ DJ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU HN LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items() for name in names.split()}


def luhn(digits: bytes) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for at, one in enumerate(reversed(digits)):
        digit = one - 48
        total += _DOUBLED[digit] if at % 2 else digit
    return total % 10 == 0


def is_card(number: bytes) -> bool:
    """Of an issuer that there is, as long as its numbers are, with its check digit.  Gaps do not count."""
    digits = number.translate(None, _GAPS)
    return len(digits) in _lengths(int(digits[:6])) and luhn(digits)


def _lengths(issuer: int) -> tuple[int, ...]:
    """ISO/IEC 7812-1, 4.2; the ranges as the schemes publish them.  `issuer`: the first six digits."""
    if issuer // 100000 == 4:
        return 13, 16, 19
    if 510000 <= issuer <= 559999 or 222100 <= issuer <= 272099:
        return (16,)
    if issuer // 10000 in (34, 37):
        return (15,)
    if issuer // 10000 in (36, 38, 39) or 300000 <= issuer <= 305999:
        return 14, 16, 19
    if issuer // 100 == 6011 or 644000 <= issuer <= 659999 or 352800 <= issuer <= 358999 or issuer // 10000 == 62:
        return 16, 17, 18, 19
    return ()


def is_iban(number: bytes) -> bool:
    """ISO 7064, MOD 97-10, over the rearranged number."""
    plain = number.translate(None, _GAPS).decode("ascii")
    if not 2 <= int(plain[2:4]) <= 98 or len(plain) != IBANS.get(plain[:2]):
        return False
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1
