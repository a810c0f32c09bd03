"""Numbers that are published as examples, and what is nearly one."""
from __future__ import annotations

import pytest

from enforcer.policy.checksums import is_card, is_iban, luhn

CARDS = ("4111111111111111", "5555 5555 5555 4444", "2223-0031-2200-3222", "378282246310005", "3714 496353 98431",
         "6011111111111117", "30569309025904", "3530111333300000", "4222222222222", "6200000000000005")
ACCOUNTS = ("DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "FR1420041010050500013M02606", "CH9300762011623852957", "BE68 5390 0754 7034")


@pytest.mark.parametrize("number", CARDS)
def test_cards(number: str) -> None:
    assert is_card(number.encode())
    for at in range(len(number)):
        if number[at].isdigit():
            wrong = number[:at] + str((int(number[at]) + 1) % 10) + number[at + 1:]
            assert not is_card(wrong.encode()), "one digit is wrong, or it is no issuer's"


@pytest.mark.parametrize("number", ["1234567812345670", "4111111111111111000", "0000000000000000", "8111111111111118"])
def test_no_cards(number: str) -> None:
    assert not is_card(number.encode())


def test_luhn_of_the_standard_s_example() -> None:
    assert luhn(b"79927398713")
    assert sum(luhn(b"7992739871%d" % last) for last in range(10)) == 1


@pytest.mark.parametrize("number", ACCOUNTS)
def test_accounts(number: str) -> None:
    assert is_iban(number.encode())
    plain = number.replace(" ", "")
    for at in range(2, len(plain)):
        if plain[at].isdigit():
            wrong = plain[:at] + str((int(plain[at]) + 1) % 10) + plain[at + 1:]
            assert not is_iban(wrong.encode())


@pytest.mark.parametrize("number", ["XX89370400440532013000", "DE8937040044053201300", "DE01370400440532013000",
                                    "DE99"])
def test_no_accounts(number: str) -> None:
    assert not is_iban(number.encode())
