"""The questions of `weir init`: which crews, whom they talk to, what becomes of what nothing permits.

Whatever was found is shown by `safe`; a secret is named by where it was found, and never shown.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click
import msgspec

from agent.commands.screen import safe
from agent.contract.target import ENFORCE, MODES, RECORD
from agent.init.findings import OTHER, Crew, Findings, Peer
from agent.init.proposal import Place, Proposal, propose, said_of
from agent.settings.fields import NAME
from agent.unit.adoptable import wrong_name

LEFT_OUT: Final = "-"
_CALLED: Final = {"postgresql": "PostgreSQL", "ssh": "SSH host", "kubernetes": "cluster"}
Find = Callable[[Sequence[str], Sequence[str]], Findings]      # of these units and users


class Questions:
    """One run of them, in their order."""

    def __init__(self, found: Findings, named: Sequence[Peer], mode: str | None, take: bool, find: Find) -> None:
        """`mode`, `take`: as the command line has them; None and False: they are asked for."""
        self._found, self._named, self._mode, self._take, self._find = found, named, mode, take, find
        self._notes: tuple[str, ...] = ()
        self._names: set[str] = set()

    def ask(self) -> tuple[Proposal, tuple[str, ...]]:
        """And notes of what was looked at meanwhile.  Raises click.Abort."""
        for note in self._found.notes:
            click.echo(f"note: {safe(note)}")
        crews = self._crews()
        proposal = propose(crews, self._found.recorded, self._named, ENFORCE)
        places = tuple(filter(None, map(self._place, proposal.places)))
        proposal = msgspec.structs.replace(proposal, places=places)
        return msgspec.structs.replace(proposal, mode=self._mode or self._asked_mode(proposal)), self._notes

    # which crews

    def _crews(self) -> tuple[Crew, ...]:
        crews = self._found.crews
        click.echo("Crews that were found:" if crews else "No crew was found.")
        for number, crew in enumerate(crews, 1):
            click.echo(f"  {number}  {safe(said_of(crew))}: {safe(crew.why)}")
        while True:
            said = click.prompt("Which are to be contained?  Numbers, a unit's name (crew.service), or user:NAME",
                                default=" ".join(str(number + 1) for number in range(len(crews))) or None, type=str)
            chosen, wrong = self._chosen(said.replace(",", " ").split())
            if chosen and not wrong:
                return chosen
            click.echo(f"weir: {safe(wrong or 'name one at least')}", err=True)

    def _chosen(self, words: Sequence[str]) -> tuple[tuple[Crew, ...], str]:
        """What these name, and what is wrong with them."""
        found: dict[str, Crew] = {}
        for word in words:
            if word.isdecimal():
                if not 0 < int(word) <= len(self._found.crews):
                    return (), f"there is no {word}"
                crew = self._found.crews[int(word) - 1]
                found[crew.name] = crew
                continue
            user = word.removeprefix("user:") if word.startswith("user:") else ""
            if not user and (wrong := wrong_name(word, "")):
                return (), wrong
            looked = self._find((), (user,)) if user else self._find((word,), ())
            if not looked.crews:
                return (), "\n".join(looked.notes) or f"{word} is not there"
            self._notes += looked.notes
            found |= {crew.name: crew for crew in looked.crews}
        return tuple(found.values()), ""

    # whom they talk to

    def _place(self, place: Place) -> Place | None:
        """With the name that it is to have; None: it is left out."""
        peer = place.peer
        where = safe(peer.socket or f"{peer.hosts[0]} port {peer.port}")
        click.echo(f"\n{_CALLED.get(peer.protocol, 'Something that Weir does not read')} at {where}"
                   + (f", as {safe(peer.user)}" if peer.user else "")
                   + (f", {safe(peer.database)}" if peer.database else ""))
        click.echo(f"  found: {safe('; '.join(peer.why))}")
        if peer.protocol == OTHER:
            wanted = click.confirm("  Let the crew reach it?  It is recorded, and not read", peer.sure)
            return place if wanted else None
        name = self._name(place)
        if name is None:
            return None
        return msgspec.structs.replace(place, name=name, take=bool(peer.secrets) and self._taken(peer))

    def _name(self, place: Place) -> str | None:
        while True:
            said = click.prompt(f"  Its name as a target; {LEFT_OUT} leaves it out", type=str,
                                default=place.name if place.peer.sure else LEFT_OUT)
            if said == LEFT_OUT:
                return None
            try:
                name = str(NAME.parse(said))
            except ValueError:
                click.echo(f"weir: {NAME.right} would be right", err=True)
                continue
            if name not in self._names:
                self._names.add(name)
                return name
            click.echo(f"weir: {name} is another one's already", err=True)

    def _taken(self, peer: Peer) -> bool:
        if self._take:
            return True
        what = " and ".join(f"the {one.kind} in {safe(one.place)}" for one in peer.secrets)
        return click.confirm(f"  Weir needs a credential.  Copy {what} to a file of root's, mode 0600?  It is not "
                             "shown", True)

    # what nothing permits

    def _asked_mode(self, proposal: Proposal) -> str:
        click.echo("\nWhat becomes of connections that nothing of this permits: enforce refuses them; record lets them "
                   "pass, records\nthem, and `weir egress suggest` drafts what the crew needs; shadow also says what "
                   "enforce would refuse.")
        said: str = click.prompt("Which mode", type=click.Choice(MODES), default=ENFORCE if proposal.egress else RECORD)
        return said
