"""What providers send by themselves, at the page's paths: that somebody has logged out there.

Anybody may send it.  Nobody reads it here: the identity process does, a few at a time, and ends what it names.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from agent.channel import ChannelError
from agent.config import Config
from agent.contract import identity as told
from agent.control import Lately
from agent.people.identity_process import IdentityProcess
from agent.settings.identity_table import ProviderEntry, SamlEntry

AT_ONCE: Final = 4                    # of what was posted, being read
SHOWN: Final = 400                    # characters of a reason
BACKCHANNEL, SAML = "backchannel", "saml"      # parts of the page: /backchannel/PROVIDER, /saml/PROVIDER/logout
_Said = TypeVar("_Said", bound=told.Message)


class Posts:
    """`tell(name, detail)` records."""

    def __init__(self, config: Callable[[], Config], process: Callable[[], IdentityProcess | None],
                 tell: Callable[[str, dict[str, object]], None]) -> None:
        self._config, self._process, self._tell = config, process, tell
        self._lately = Lately()
        self._reading = 0

    async def came(
        self, part: str, name: str, method: str, query: str, body: bytes, url: str,
    ) -> tuple[int, str, str]:
        """At the page, whose address is `url`: status, what is said, and where a browser goes on ("": nowhere)."""
        provider, _, what = name.partition("/")
        if part == BACKCHANNEL and not what:
            return (*await self.backchannel(provider, body), "") if method == "POST" else (405, "POST it", "")
        if part != SAML or what != "logout":
            return 404, "there is nothing here", ""
        if method == "GET":
            body = b""
        elif query or not body:
            return 400, "a form would be right", ""
        if "SAMLResponse=" in query or body.startswith(b"SAMLResponse="):
            # The answer to `weir logout`, whose login has ended long ago: nothing depends on it.
            return 200, "You have logged out.", ""
        status, said = await self.saml_logout(provider, f"{url}/saml/{name}", query, body)
        return (303, "", said) if status == 303 else (status, said, "")

    async def backchannel(self, provider: str, body: bytes) -> tuple[int, str]:
        """OpenID Connect Back-Channel Logout 1.0, 2.8: the status that it is answered with, and why."""
        if not isinstance(self._config().provider(provider), ProviderEntry):
            return 404, "there is no such provider"
        done = await self._asked(body, lambda number: told.Logout(number, provider, body), told.Done)
        return done if isinstance(done, tuple) else self._heard(provider, done.error)

    async def saml_logout(self, provider: str, place: str, query: str, form: bytes) -> tuple[int, str]:
        """SAML's single logout, by a browser or from the provider itself: as `backchannel`; with 303 the text is where
        the browser goes on.  `place`: the address that it was to come to."""
        if not isinstance(self._config().provider(provider), SamlEntry):
            return 404, "there is no such provider"
        done = await self._asked(form or query.encode(errors="replace"), lambda number: told.SamlLogout(
            number, provider, place, query, form), told.LoggedOut)
        if isinstance(done, tuple):
            return done
        status, error = self._heard(provider, done.error)
        # Of the identity process' word an https address is taken, which the provider's metadata has, and nothing else.
        return (303, done.url) if done.url.startswith("https://") and not error else (status, error)

    async def _asked(
        self, content: bytes, make: Callable[[int], told.Message], wanted: type[_Said],
    ) -> _Said | tuple[int, str]:
        """What the identity process says of it; or a status, and why it is not asked."""
        process = self._process()
        if process is None or len(content) > told.LOGOUT:
            return (404, "there is no such provider") if process is None else (413, "it is too long")
        if self._reading >= AT_ONCE:
            return 503, "too many at once"
        self._reading += 1
        try:
            return await process.channel.ask(make, wanted)
        except ChannelError as wrong:
            return 503, str(wrong)
        finally:
            self._reading -= 1

    def _heard(self, provider: str, error: str) -> tuple[int, str]:
        """Recorded: each that counted; of what anybody may send so much as fills no recording."""
        error = shown(error)
        times = self._lately.again(provider) if error else 1
        if times:
            self._tell("logout.received", {"provider": provider, **({"error": error, "times": times} if error else {})})
        return (400, error) if error else (200, "")


def shown(text: str) -> str:
    """What the identity process says, which may be a provider's words: on terminals and in errors of protocols."""
    return "".join(one if one.isprintable() else "?" for one in text)[:SHOWN]
