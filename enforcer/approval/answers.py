"""Who may answer, and what an answer makes of what was asked.  Pure.

Who asked is never who answers, by whatever name: the same subject, the local user that it speaks through, another name
of the same person by [people] of groups.toml or by a login that is open.  Breaking the glass is the exception that a
rule may name.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import structs

from agent.contract.messages import REASON_REQUIRED
from agent.contract.people import People
from enforcer.approval.asked import Asked, Assent
from enforcer.words.decisions import HoldTerms

NOBODY: Final = People()              # is known by two names


def who_may(asked: Asked, terms: HoldTerms) -> tuple[str, ...]:
    """Groups that may answer for this rule now."""
    return (*terms.approvers, *(terms.escalate_to if terms.rule in asked.escalated else ()))


def is_asker(asked: Asked, names: Iterable[str], people: People = NOBODY) -> bool:
    return not set(people.names((asked.view.subject, asked.behind))).isdisjoint(people.names(names))


def everybody(asked: Asked) -> tuple[str, ...]:
    return tuple(dict.fromkeys(group for terms in asked.terms for group in who_may(asked, terms)))


def why_not(
    asked: Asked, approve: bool, by: str, groups: Iterable[str], reason: str, names: Iterable[str] = (),
    people: People = NOBODY,
) -> str:
    """Why this answer does not count, "" where it does.  `names`: other ones of the same person."""
    mine, every = _mine(asked, groups), (by, *names)
    if is_asker(asked, every, people):
        same = "" if by in (asked.view.subject, asked.behind) else f" as {asked.view.subject}"
        return f"{by} asked for this{same} and cannot answer it"
    if not mine:
        return f"{by} is in none of the groups that may answer: {', '.join(everybody(asked))}"
    if not reason and (not approve or any(terms.reason_required for terms in mine)):
        return REASON_REQUIRED
    before = [one for one in asked.assents if people.distinct((every, (one.by, *one.names))) == 1] if approve else []
    if approve and all(any(one.rule == terms.rule for one in before) for terms in mine):
        same = "" if any(one.by == by for one in before) else f" as {before[0].by}"
        return f"{by} has approved it already{same}: another approver is wanted"
    return ""


def why_no_glass(asked: Asked, by: str, groups: Iterable[str], reason: str) -> str:
    """The same of breaking the glass, which the asker may do."""
    named = tuple(dict.fromkeys(terms.break_glass for terms in asked.terms if terms.break_glass))
    if not named:
        return "its rule has no break-glass"
    if not set(named) & set(groups):
        return f"{by} is not in the group that may break the glass: {', '.join(named)}"
    return "" if reason else REASON_REQUIRED


def assented(asked: Asked, by: str, groups: Iterable[str], glass: bool, names: tuple[str, ...] = ()) -> Asked:
    """With this yes."""
    mine = [terms for terms in asked.terms if terms.break_glass in groups] if glass else _mine(asked, groups)
    known = {(one.rule, one.by) for one in asked.assents if one.glass == glass}
    more = tuple(Assent(terms.rule, by, glass, names) for terms in mine if (terms.rule, by) not in known)
    assents = (*asked.assents, *more)
    return structs.replace(asked, assents=assents, view=structs.replace(
        asked.view, assents=tuple(dict.fromkeys(one.by for one in assents))))


def is_enough(asked: Asked, people: People = NOBODY) -> bool:
    """Every rule has its number of distinct approvers, which are people, or was let through by break-glass."""
    for terms in asked.terms:
        said = [one for one in asked.assents if one.rule == terms.rule]
        if not any(one.glass for one in said) and _approvers(asked, said, people) < terms.count:
            return False
    return True


def _approvers(asked: Asked, said: Iterable[Assent], people: People) -> int:
    """How many people; who turned out to be the asker since is none."""
    each = [(one.by, *one.names) for one in said]
    return people.distinct(names for names in each if not is_asker(asked, names, people))


def wanted(terms: Iterable[HoldTerms]) -> int:
    """Distinct approvers that the strictest rule wants."""
    return max((one.count for one in terms), default=1)


def _mine(asked: Asked, groups: Iterable[str]) -> list[HoldTerms]:
    named = set(groups)
    return [terms for terms in asked.terms if named & set(who_may(asked, terms))]
