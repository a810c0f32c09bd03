"""Who may answer, and what an answer makes of what was asked.  Pure.

Who asked is never who answers: the same subject, or the local user that it speaks through.  That one person has two
subjects with two providers cannot be known here; whoever puts both into one group of approvers has to.  Breaking the
glass is the exception that a rule may name.
"""
from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from enforcer.approval.asked import Asked, Assent
from enforcer.words.decisions import HoldTerms


def who_may(asked: Asked, terms: HoldTerms) -> tuple[str, ...]:
    """Groups that may answer for this rule now."""
    return (*terms.approvers, *(terms.escalate_to if terms.rule in asked.escalated else ()))


def is_asker(asked: Asked, by: str) -> bool:
    return by in (asked.view.subject, asked.behind)


def everybody(asked: Asked) -> tuple[str, ...]:
    return tuple(dict.fromkeys(group for terms in asked.terms for group in who_may(asked, terms)))


def why_not(asked: Asked, approve: bool, by: str, groups: Iterable[str], reason: str) -> str:
    """Why this answer does not count, "" where it does."""
    mine = _mine(asked, groups)
    if is_asker(asked, by):
        return f"{by} asked for this and cannot answer it"
    if not mine:
        return f"{by} is in none of the groups that may answer: {', '.join(everybody(asked))}"
    if not reason and (not approve or any(terms.reason_required for terms in mine)):
        return "a reason is required"
    if approve and all(any(one.rule == terms.rule and one.by == by for one in asked.assents) for terms in mine):
        return f"{by} has approved it already: another approver is wanted"
    return ""


def why_no_glass(asked: Asked, by: str, groups: Iterable[str], reason: str) -> str:
    """The same of breaking the glass, which the asker may do."""
    named = tuple(dict.fromkeys(terms.break_glass for terms in asked.terms if terms.break_glass))
    if not named:
        return "its rule has no break-glass"
    if not set(named) & set(groups):
        return f"{by} is not in the group that may break the glass: {', '.join(named)}"
    return "" if reason else "a reason is required"


def assented(asked: Asked, by: str, groups: Iterable[str], glass: bool) -> Asked:
    """With this yes."""
    mine = [terms for terms in asked.terms if terms.break_glass in groups] if glass else _mine(asked, groups)
    known = {(one.rule, one.by) for one in asked.assents if one.glass == glass}
    more = tuple(Assent(terms.rule, by, glass) for terms in mine if (terms.rule, by) not in known)
    assents = (*asked.assents, *more)
    return structs.replace(asked, assents=assents, view=structs.replace(
        asked.view, assents=tuple(dict.fromkeys(one.by for one in assents))))


def is_enough(asked: Asked) -> bool:
    """Every rule has its number of distinct approvers, or was let through by break-glass."""
    for terms in asked.terms:
        said = [one for one in asked.assents if one.rule == terms.rule]
        if not any(one.glass for one in said) and len({one.by for one in said}) < terms.count:
            return False
    return True


def wanted(terms: Iterable[HoldTerms]) -> int:
    """Distinct approvers that the strictest rule wants."""
    return max((one.count for one in terms), default=1)


def _mine(asked: Asked, groups: Iterable[str]) -> list[HoldTerms]:
    named = set(groups)
    return [terms for terms in asked.terms if named & set(who_may(asked, terms))]
