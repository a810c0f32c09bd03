"""Pure: keys of providers, in certificates, and Weir's own."""
from __future__ import annotations

import base64
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from enforcer.identity.tokens import RSA_BITS
from enforcer.words.errors import AuthenticationError

CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
CERTIFICATE: Final = 16 << 10         # characters of one in metadata


def parse_certificate(text: str) -> x509.Certificate | None:
    """Base64 of DER, as metadata has it; None: nothing that counts here.  It is a key's envelope: no chain is looked
    at, for the metadata names it (Metadata Interoperability Profile 1.0, 2.5), but its time is when it is used."""
    if len(text) > CERTIFICATE:
        return None
    try:
        found = x509.load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True))
        key = found.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return found if key.key_size in RSA_BITS else None
    return found if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES else None


def parse_key(pem: str) -> rsa.RSAPrivateKey:
    """Weir's own.  Raises AuthenticationError."""
    try:
        found = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AuthenticationError("its key_file holds no private key in PEM without a password") from None
    if not isinstance(found, rsa.RSAPrivateKey) or found.key_size not in RSA_BITS:
        raise AuthenticationError(f"the key of its key_file is no RSA key of {RSA_BITS.start} bits or more")
    return found
