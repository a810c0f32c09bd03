"""Masks by description: for each column that a RowDescription names, what its values become."""
from __future__ import annotations

from typing import Final

from enforcer.hot.rows import Mask
from enforcer.policy.masks import make_mask
from enforcer.protocols.postgresql.catalogue import Catalogue
from enforcer.protocols.postgresql.messages import Field, parse_row_description
from enforcer.protocols.postgresql.studied import Verdict

KEPT: Final = 64                      # descriptions that are remembered, each of at most
DESCRIPTION: Final = 4 << 10          # bytes


class RowMasks:
    """Made once for a description, a catalogue and what policy lets be seen."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, int, tuple[str, ...]], list[Mask | None]] = {}

    def find(self, description: bytes, catalogue: Catalogue, verdict: Verdict) -> tuple[list[Mask | None], bool]:
        """Empty where all values stay; and whether there is a table that the catalogue does not know."""
        key = (description, catalogue.version, verdict.decision.unmasked)
        kept = self._kept.get(key)
        if kept is not None:
            return kept, False
        masks, unknown = _make(parse_row_description(description), catalogue, verdict)
        if not unknown and len(description) <= DESCRIPTION:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[key] = masks
        return masks, unknown


def _make(fields: tuple[Field, ...], catalogue: Catalogue, verdict: Verdict) -> tuple[list[Mask | None], bool]:
    masks: list[Mask | None] = []
    unknown = False
    for field in fields:
        known, label = catalogue.column(field.table, field.attribute)
        if not known:
            unknown = True
            masks.append(_nothing)
            continue
        seen = label is None or label.label in verdict.decision.unmasked
        masks.append(None if seen or label is None else make_mask(label.mask, field.type, field.format))
    return masks if any(masks) else [], unknown


def _nothing(value: bytes) -> None:
    """The mask of what is not known: NULL, in every type and format."""
