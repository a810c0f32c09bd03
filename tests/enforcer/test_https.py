"""Whose certificates are taken of what Weir itself asks over HTTPS."""
from __future__ import annotations

import ssl

import pytest
from lab import certificates

from enforcer.https import trusted


@pytest.mark.parametrize("roots", ["", certificates.make_authority("Example").pem])
def test_every_python_trusts_the_same(roots: str) -> None:
    """Python 3.13's create_default_context has these two by itself."""
    context = trusted(roots)
    assert not context.verify_flags & (ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
