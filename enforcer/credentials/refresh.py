"""An ID token for a refresh token, once (OpenID Connect Core 1.0, 12): what its provider says is parsed here.

    python -I -m enforcer.credentials.refresh < QUESTION > ANSWER

Both are as agent/contract/refresh.py has them.  The agent starts it as the user weir-vault for each renewal.  Exit: 0
with an answer, 1 where it may not run.
"""
from __future__ import annotations

import asyncio
import logging
import re
import ssl
import sys
from base64 import b64encode
from typing import Annotated, Final, TypeVar
from urllib.parse import quote_plus

import httpx2
import msgspec

from agent.contract.logs import log_to_stderr
from agent.contract.refresh import TOKEN, Asked, Given
from enforcer import https
from enforcer.identity.metadata import BASIC, POST, is_https, place
from enforcer.privileges import check_privileges, harden
from enforcer.words.errors import AuthenticationError, PlatformError

LOG = logging.getLogger("weir.credentials")

SECONDS: Final = 20.0                 # of both exchanges
QUESTION: Final = 2 << 20             # bytes
_TOKEN: Final = re.compile(r"[!-~]+")
_Answer = TypeVar("_Answer")
_CODE: Final = re.compile(r"[a-z_]{1,40}")


class _Metadata(msgspec.Struct, frozen=True):
    issuer: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = (BASIC,)      # Discovery 1.0, 3


class _Tokens(msgspec.Struct, frozen=True):
    id_token: Annotated[str, msgspec.Meta(max_length=TOKEN)] = ""
    refresh_token: Annotated[str, msgspec.Meta(max_length=TOKEN)] = ""


class _Wrong(msgspec.Struct, frozen=True):
    error: str = ""


async def refresh(asked: Asked) -> Given:
    """Whatever goes wrong is in `error`."""
    try:
        async with asyncio.timeout(SECONDS), httpx2.AsyncClient(**https.options(https.trusted(asked.ca))) as client:
            metadata = _metadata(asked, await client.get(place(asked.issuer)))
            form, headers = _said(asked, metadata)
            return _given(await client.post(metadata.token_endpoint, data=form, headers=headers))
    except AuthenticationError as wrong:
        return Given(str(wrong)[:400])
    except TimeoutError:
        return Given(f"the provider did not answer within {SECONDS:.0f} s")
    except ssl.SSLError:
        return Given("issuer_ca holds no roots that can be read")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, TypeError, LookupError) as wrong:
        return Given(f"the provider cannot be reached ({type(wrong).__name__})")


def _metadata(asked: Asked, answer: httpx2.Response) -> _Metadata:
    if answer.status_code != 200:
        raise AuthenticationError(f"the provider's configuration is not there ({answer.status_code})")
    found = _decode(answer.content, _Metadata)
    if found.issuer != asked.issuer:              # Discovery 1.0, 4.3: MUST be the same
        raise AuthenticationError("the provider's configuration names another issuer")
    if not is_https(found.token_endpoint):
        raise AuthenticationError("the provider's token_endpoint is no https address")
    return found


def _said(asked: Asked, metadata: _Metadata) -> tuple[dict[str, str], dict[str, str]]:
    """Form and headers: RFC 6749, 6, and 2.3.1 of how Weir says who it is."""
    form = {"grant_type": "refresh_token", "refresh_token": asked.refresh_token}
    if not asked.client_secret:
        return form | {"client_id": asked.client_id}, {}
    known = metadata.token_endpoint_auth_methods_supported
    if BASIC not in known and POST in known:
        return form | {"client_id": asked.client_id, "client_secret": asked.client_secret}, {}
    pair = f"{quote_plus(asked.client_id)}:{quote_plus(asked.client_secret)}"
    return form, {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _given(answer: httpx2.Response) -> Given:
    if answer.status_code != 200:
        raise AuthenticationError(f"the provider gives no token ({_why(answer)})")
    found = _decode(answer.content, _Tokens)
    if not _TOKEN.fullmatch(found.id_token):      # Core 1.0, 12.2: it need not be there
        raise AuthenticationError("the provider gives no ID token for a refresh token")
    if found.refresh_token and not _TOKEN.fullmatch(found.refresh_token):
        raise AuthenticationError("the provider's refresh token is none that could be used")
    return Given("", found.id_token, found.refresh_token)


def _why(answer: httpx2.Response) -> str:
    """RFC 6749, 5.2: the code alone, which is one of a few words."""
    try:
        code = msgspec.json.decode(answer.content, type=_Wrong).error
    except (msgspec.MsgspecError, RecursionError):
        code = ""
    said = code if _CODE.fullmatch(code) else str(answer.status_code)
    return f"{said}: its refresh token has ended" if code == "invalid_grant" else said


def _decode(content: bytes, wanted: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(content, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise AuthenticationError("the provider answered what makes no sense") from None


def main() -> int:
    log_to_stderr()
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        check_privileges()
        harden()
    except PlatformError as error:
        LOG.error("%s", error)
        return 1
    asked = msgspec.json.decode(sys.stdin.buffer.read(QUESTION), type=Asked)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(refresh(asked))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
