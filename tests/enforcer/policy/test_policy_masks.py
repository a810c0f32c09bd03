"""Masks: every mask over every type, as text and binary; what does not fit is NULL, never the value."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy import masks
from enforcer.policy.masks import TEXTS, make_mask, mask_value

# pg_type.dat
TYPES = {
    "bool": 16, "bytea": 17, "char": 18, "name": 19, "int8": 20, "int2": 21, "int4": 23, "text": 25, "oid": 26,
    "json": 114, "xml": 142, "float4": 700, "float8": 701, "unknown": 705, "inet": 869, "bpchar": 1042, "varchar": 1043,
    "date": 1082, "time": 1083, "timestamp": 1114, "timestamptz": 1184,
    "interval": 1186, "bit": 1560, "numeric": 1700, "uuid": 2950,
    "jsonb": 3802, "text[]": 1009, "int4[]": 1007, "record": 2249, "citext": 16999, "enum": 17000,
}
MASKS = ("redact", "partial", "hash", "null", "constant:hidden", "constant:", "", "nonsense", "Redact")
VALUE = b"Secret.Value@mail.example"


@pytest.mark.parametrize("form", [0, 1], ids=["text", "binary"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", TYPES)
def test_no_mask_shows_the_value(kind: str, mask: str, form: int) -> None:
    shown = mask_value(mask, TYPES[kind], form, VALUE)
    if TYPES[kind] not in TEXTS or mask in ("null", "", "nonsense", "Redact"):
        assert shown is None
    elif kind != "char":
        assert shown is not None
        assert VALUE not in shown
        assert b"ecret" not in shown
    elif shown is not None:
        assert len(shown) <= 1


@pytest.mark.parametrize(("mask", "value", "shown"), [
    ("redact", "x", "[redacted]"), ("redact", "", "[redacted]"), ("constant:hidden", "x", "hidden"),
    ("constant:a:b", "x", "a:b"), ("constant:", "x", ""), ("null", "x", None),
    ("partial", "ada@x.example", "a***@***.example"), ("partial", "ada@mail.x.example", "a***@***.example"),
    ("partial", "a@b", "***@***"), ("partial", "ab@host", "a***@***"), ("partial", "a@b.c", "***@***.c"),
    ("partial", "@b.c", "***@***.c"), ("partial", "a@", "***@***"), ("partial", "@", "***@***"),
    ("partial", "", "***"), ("partial", "abc", "***"), ("partial", "abcd", "a***"), ("partial", "äöüß", "ä***"),
    ("partial", "a@b@c.de", "a***@***.de"),
])
def test_masks_of_text(mask: str, value: str, shown: str | None) -> None:
    assert mask_value(mask, 25, 0, value.encode()) == (None if shown is None else shown.encode())


def test_what_is_not_utf8_becomes_null() -> None:
    for mask in MASKS:
        assert mask_value(mask, 25, 0, b"\xff\xfe") is None


def test_names_stay_names() -> None:
    assert mask_value("constant:" + "x" * 64, 19, 0, b"v") is None
    assert mask_value("constant:" + "x" * 63, 19, 0, b"v") == b"x" * 63
    assert mask_value("redact", 18, 1, b"v") is None
    assert mask_value("constant:x", 18, 1, b"v") == b"x"


def test_hashes_are_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_key", b"one key")
    first, again, other = (mask_value("hash", 25, 0, value) for value in (b"a", b"a", b"b"))
    assert first == again != other
    monkeypatch.setattr(masks, "_key", b"another")
    assert mask_value("hash", 25, 0, b"a") != first
    masks.set_key(bytes(32))
    assert mask_value("hash", 25, 0, b"a") not in (first, None)


def test_without_a_key_of_its_own_an_installation_is_not_guessable() -> None:
    """A key that everybody knows would let a guess be tried."""
    assert len(masks._key) >= 16
    assert masks._key != bytes(len(masks._key))


@given(st.one_of(st.binary(max_size=40), st.text("ab@.ü\0", max_size=12).map(str.encode), st.emails().map(str.encode)),
       st.sampled_from(("partial", "redact", "hash", "null", "constant:x", "unknown", "partial:")),
       st.sampled_from((25, 1043, 18, 19, 23, 17)), st.sampled_from((0, 1)))
def test_the_mask_of_a_column_is_that_of_its_values(value: bytes, mask: str, kind: int, form: int) -> None:
    assert make_mask(mask, kind, form)(value) == mask_value(mask, kind, form, value)
