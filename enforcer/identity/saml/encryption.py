"""Pure: an encrypted assertion -> its bytes (XML Encryption 1.1), by what proves that nobody changed it, and no less.

AES-GCM and RSA-OAEP alone: with AES-CBC or PKCS#1 v1.5 whoever may ask often enough reads and changes what is encrypted
(Jager and Somorovsky 2011; the specification's 5.2 and 6.3 say so too).  An encryption says nothing of who made it: an
assertion is signed all the same.
"""
from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from lxml import etree

from enforcer.words.errors import AuthenticationError

DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
XENC: Final = "{http://www.w3.org/2001/04/xmlenc#}"
XENC11: Final = "{http://www.w3.org/2009/xmlenc11#}"
CONTENT: Final = {f"http://www.w3.org/2009/xmlenc11#aes{bits}-gcm": bits // 8 for bits in (128, 192, 256)}
OAEP: Final = ("http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p", "http://www.w3.org/2009/xmlenc11#rsa-oaep")
# SHA-1 here is no signature: nothing is known against it in OAEP.
DIGESTS: Final[dict[str, Callable[[], hashes.HashAlgorithm]]] = {
    "http://www.w3.org/2000/09/xmldsig#sha1": hashes.SHA1, "http://www.w3.org/2001/04/xmlenc#sha256": hashes.SHA256,
    "http://www.w3.org/2001/04/xmldsig-more#sha384": hashes.SHA384,
    "http://www.w3.org/2001/04/xmlenc#sha512": hashes.SHA512}
MASKS: Final[dict[str, Callable[[], hashes.HashAlgorithm]]] = {
    f"http://www.w3.org/2009/xmlenc11#mgf1{one.name}": one
    for one in (hashes.SHA1, hashes.SHA256, hashes.SHA384, hashes.SHA512)}
NONCE, TAG = 12, 16                   # bytes, 5.2.4


def decrypt(element: etree._Element, key: rsa.RSAPrivateKey | None) -> bytes:
    """What saml:EncryptedAssertion holds.  Raises AuthenticationError, with the same words whatever fails."""
    if key is None:
        raise AuthenticationError("it is encrypted, and the provider has no key_file here")
    data, wrapped = element.findall(f"{XENC}EncryptedData"), list(element.iter(f"{XENC}EncryptedKey"))
    if len(data) != 1 or len(wrapped) != 1:
        raise AuthenticationError("it is not encrypted once, with one key")
    size = CONTENT.get(_algorithm(data[0]))
    if size is None or _algorithm(wrapped[0]) not in OAEP:
        raise AuthenticationError("it is encrypted otherwise than by AES-GCM and RSA-OAEP")
    try:
        secret = key.decrypt(_cipher(wrapped[0]), _padding(wrapped[0]))
        sealed = _cipher(data[0])
        if len(secret) != size or len(sealed) < NONCE + TAG:
            raise ValueError
        return AESGCM(secret).decrypt(sealed[:NONCE], sealed[NONCE:], None)
    except (ValueError, TypeError, KeyError, InvalidTag, UnsupportedAlgorithm):
        raise AuthenticationError("it cannot be decrypted with the key_file of its provider") from None


def _algorithm(element: etree._Element) -> str:
    method = element.find(f"{XENC}EncryptionMethod")
    return "" if method is None else method.get("Algorithm", "")


def _cipher(element: etree._Element) -> bytes:
    """Raises ValueError."""
    [value] = element.findall(f"{XENC}CipherData/{XENC}CipherValue")
    return base64.b64decode("".join((value.text or "").split()), validate=True)


def _padding(element: etree._Element) -> padding.OAEP:
    """5.5.2.  Raises ValueError, KeyError."""
    method = element.find(f"{XENC}EncryptionMethod")
    assert method is not None
    if method.find(f"{XENC}OAEPparams") is not None:
        raise ValueError("parameters")
    digest, mask = method.find(f"{DS}DigestMethod"), method.find(f"{XENC11}MGF")
    hashed: Callable[[], hashes.HashAlgorithm] = hashes.SHA1 if digest is None else DIGESTS[digest.get("Algorithm", "")]
    masked: Callable[[], hashes.HashAlgorithm] = hashes.SHA1 if mask is None else MASKS[mask.get("Algorithm", "")]
    return padding.OAEP(padding.MGF1(masked()), hashed(), None)
