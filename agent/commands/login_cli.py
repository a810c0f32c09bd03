"""`weir login`, `weir logout`, `weir whoami`: the person's side, without privilege.

Exit codes: 0 done, or logged in; 1 refused, failed, or (whoami) not logged in; 2 usage; 3 the agent is not running.
The listener of a browser's login is this process' own: it takes the one answer that belongs to it and hands it on.
"""
from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Final

import click

from agent.commands import screen
from agent.commands.asked import EXIT_CODES, asked, note_json
from agent.commands.loopback_answer import Listener
from agent.contract import control

FAILED: Final = 1
_JSON: Final = click.option("--json", "as_json", is_flag=True, callback=note_json,
                            help="One JSON document instead of text.")


@click.command(epilog=EXIT_CODES)
@click.option("--provider", default="", help="A [[provider]] or [[saml_provider]] of the configuration; the only one "
              "where it is not said.")
@click.option("--device", is_flag=True, help="The browser is on another machine: it is shown an address and a code "
              "(not by SAML).")
@_JSON
@click.pass_obj
def login(file: str, provider: str, device: bool, as_json: bool) -> None:
    """Log in at an identity provider.

    What you start by `weir run` from then on speaks for you.  The address that is shown is opened in a browser, on this
    machine or, with --device, on any."""
    if device:
        begun = _begin(file, control.Login(provider))
        _show(begun, as_json)
    else:
        with ExitStack() as stack:
            listener = stack.enter_context(Listener())
            begun = _begin(file, control.Login(provider, listener.port))
            if begun.port not in (0, listener.port):
                listener = _listen(stack, begun.port)
            _show(begun, as_json)
            answer = listener.wait(begun.url, begun.provider, begun.seconds)
            if answer is None:
                raise click.ClickException(
                    "nobody came back in time; without a browser on this machine: weir login --device")
            finished = asked(file, control.FinishLogin(begun.session, answer), control.Answered)
            if finished.error:
                raise click.ClickException(finished.error)
    while (state := asked(file, control.AwaitLogin(begun.session), control.LoginState)).waiting:
        pass
    if state.error:
        raise click.ClickException(state.error)
    _say(asked(file, control.AskWhoAmI(), control.WhoAmI), as_json)


@click.command(epilog=EXIT_CODES)
@_JSON
@click.pass_obj
def logout(file: str, as_json: bool) -> None:
    """End your login.

    What speaks for you ends after the operation that runs.  Where a SAML provider has single logout, an address is
    shown at which you log out there, too."""
    answer = asked(file, control.Logout(), control.LoggedOut)
    if answer.error:
        raise click.ClickException(answer.error)
    if as_json:
        screen.print_json({"error": "", "url": answer.url})
        return
    click.echo("logged out")
    if answer.url:
        click.echo(screen.safe(f"to log out at the provider, too, open {answer.url} in a browser"))


@click.command(epilog="Exit codes: 0 logged in, 1 not logged in, 2 usage, 3 the agent is not running.")
@_JSON
@click.pass_obj
def whoami(file: str, as_json: bool) -> None:
    """Who you are to Weir, and in which groups."""
    who = asked(file, control.AskWhoAmI(), control.WhoAmI)
    _say(who, as_json)
    sys.exit(0 if who.provider else FAILED)


def _begin(file: str, message: control.Login) -> control.LoginBegun:
    begun = asked(file, message, control.LoginBegun)
    if begun.error:
        raise click.ClickException(begun.error)
    return begun


def _listen(stack: ExitStack, port: int) -> Listener:
    """Where the provider must know the port."""
    try:
        return stack.enter_context(Listener(port))
    except OSError:
        raise click.ClickException(f"port {port} of this machine, where the provider's answer comes to, is taken: "
                                   "ss -ltnp says by what") from None


def _show(begun: control.LoginBegun, as_json: bool) -> None:
    """On standard error with --json, where somebody has to see it all the same."""
    lines = [f"open {begun.complete or begun.url}" + (" in a browser" if not begun.user_code else "")]
    if begun.user_code:
        lines.append(f"and confirm there that the code is {begun.user_code}"
                     + (f" (or type it at {begun.url})" if begun.complete else ""))
    for line in lines:
        click.echo(screen.safe(line), err=as_json)


def _say(who: control.WhoAmI, as_json: bool) -> None:
    if as_json:
        screen.print_json({"logged_in": bool(who.provider), "subject": who.subject, "groups": who.groups,
                           "provider": who.provider, "since": who.since, "until": who.until, "login": who.session})
        return
    groups = ", ".join(who.groups) or "none"
    if not who.provider:
        click.echo(screen.safe(f"not logged in; {who.subject}, groups: {groups}"))
        return
    until = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(who.until))
    click.echo(screen.safe(f"{who.subject}, groups: {groups}; until {until} at the latest"))
