"""A SAML provider of the tests': real keys, real signatures and encryption, made by hand with lxml and cryptography, so
that what is checked is not checked by what made it, and anything wrong can be made as well."""
from __future__ import annotations

import base64
import datetime
import hashlib
import os
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lxml import etree

from agent.contract.identity import NAME_ID, SamlProvider
from enforcer.identity.saml.assertion import Asked
from enforcer.identity.saml.times import render_time

NOW = 1_800_000_000
ISSUER = "https://idp.lab.example/saml"
WEIR = "urn:weir:lab"
PLACE = "http://127.0.0.1:4444/acs/corp"
REQUEST = "_request"
SSO = "https://idp.lab.example/sso"
DS = "http://www.w3.org/2000/09/xmldsig#"
XENC, XENC11 = "http://www.w3.org/2001/04/xmlenc#", "http://www.w3.org/2009/xmlenc11#"
NAMESPACES = {"p": "urn:oasis:names:tc:SAML:2.0:protocol", "a": "urn:oasis:names:tc:SAML:2.0:assertion", "ds": DS}
ENVELOPED = DS + "enveloped-signature"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
SHA256 = XENC + "sha256"

KEY = rsa.generate_private_key(65537, 2048)
STRANGE = rsa.generate_private_key(65537, 2048)
SHORT = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
WEIRS = rsa.generate_private_key(65537, 2048)


def certificate(key: Any, begin: int = NOW - 86400, end: int = NOW + 86400) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp")])
    return x509.CertificateBuilder(name, name, key.public_key(), 1, *(
        datetime.datetime.fromtimestamp(one, datetime.UTC) for one in (begin, end))).sign(key, hashes.SHA256())


CERTIFICATE = certificate(KEY)
WEIRS_PEM = WEIRS.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def metadata(*certificates: x509.Certificate, **changed: Any) -> bytes:
    said = {"entity": ISSUER, "sso": SSO, "more": "", "use": 'use="signing"',
            "binding": "HTTP-Redirect"} | changed
    keys = "".join(
        f'<KeyDescriptor {said["use"]}><ds:KeyInfo xmlns:ds="{DS}"><ds:X509Data><ds:X509Certificate>'
        f"{base64.b64encode(one.public_bytes(Encoding.DER)).decode()}"
        "</ds:X509Certificate></ds:X509Data></ds:KeyInfo></KeyDescriptor>" for one in certificates or (CERTIFICATE,))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- as providers have them -->
<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{said['entity']}" {said['more']}>
<IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">{keys}
<SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="https://idp.lab.example/post"/>
<SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:{said['binding']}" Location="{said['sso']}"/>
</IDPSSODescriptor></EntityDescriptor>""".encode()


def provider(**changed: Any) -> SamlProvider:
    base = {"name": "corp", "issuer": ISSUER, "entity_id": WEIR, "metadata": metadata(), "metadata_url": "", "ca": "",
            "key": WEIRS_PEM, "subject_claim": NAME_ID, "groups_claim": ("groups",),
            "groups": {"dba": "dba", "/staff": "data"}, "required": {}}
    return SamlProvider(**(base | changed))


def asked(**changed: Any) -> Asked:
    return Asked(provider(**changed), REQUEST, PLACE)


def assertion(now: int = NOW, name: str = "_assertion", **changed: Any) -> str:
    """As text, unsigned.  What is given as "" is left out."""
    when = {"now": render_time(now), "end": render_time(now + 300), "session": render_time(now + 7200)}
    said = {
        "issuer": f"<a:Issuer>{ISSUER}</a:Issuer>",
        "name_id": '<a:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">ada</a:NameID>',
        "method": "urn:oasis:names:tc:SAML:2.0:cm:bearer", "recipient": PLACE, "in_response_to": REQUEST,
        "confirmed": when["end"], "confirmation": "", "not_before": when["now"], "not_after": when["end"],
        "audience": f"<a:AudienceRestriction><a:Audience>{WEIR}</a:Audience></a:AudienceRestriction>",
        "conditions": "", "instant": when["now"], "version": "2.0",
        "statement": f'<a:AuthnStatement AuthnInstant="{when["now"]}" SessionNotOnOrAfter="{when["session"]}">'
                     "<a:AuthnContext><a:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password"
                     "</a:AuthnContextClassRef></a:AuthnContext></a:AuthnStatement>",
        "attributes": attribute("groups", "dba", "other")} | changed

    def part(name: str, value: str) -> str:
        return f'{name}="{value}"' if value else ""

    statement = f"<a:AttributeStatement>{said['attributes']}</a:AttributeStatement>" if said["attributes"] else ""
    return f"""<a:Assertion xmlns:a="{NAMESPACES['a']}" xmlns:xs="http://www.w3.org/2001/XMLSchema"
 ID="{name}" {part('Version', said['version'])} {part('IssueInstant', said['instant'])}>{said['issuer']}
<a:Subject>{said['name_id']}<a:SubjectConfirmation Method="{said['method']}"><a:SubjectConfirmationData
 {part('Recipient', said['recipient'])} {part('InResponseTo', said['in_response_to'])}
 {part('NotOnOrAfter', said['confirmed'])} {said['confirmation']}/></a:SubjectConfirmation></a:Subject>
<a:Conditions {part('NotBefore', said['not_before'])} {part('NotOnOrAfter', said['not_after'])}>{said['audience']}
{said['conditions']}</a:Conditions>{said['statement']}{statement}</a:Assertion>"""


def attribute(name: str, *values: str) -> str:
    kind = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string"'
    inner = "".join(f"<a:AttributeValue {kind}>{one}</a:AttributeValue>" for one in values)
    return f'<a:Attribute Name="{name}">{inner}</a:Attribute>'


def response(inner: str, now: int = NOW, name: str = "_response", **changed: Any) -> str:
    said = {"status": '<p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/>', "destination": PLACE,
            "in_response_to": REQUEST, "issuer": ISSUER, "instant": render_time(now), "version": "2.0"} | changed

    def part(name: str, value: str) -> str:
        return f'{name}="{value}"' if value else ""

    issuer = f"<a:Issuer>{said['issuer']}</a:Issuer>" if said["issuer"] else ""
    return f"""<p:Response xmlns:p="{NAMESPACES['p']}" xmlns:a="{NAMESPACES['a']}" ID="{name}"
 {part('Version', said['version'])} {part('IssueInstant', said['instant'])} {part('Destination', said['destination'])}
 {part('InResponseTo', said['in_response_to'])}>{issuer}<p:Status>{said['status']}</p:Status>{inner}</p:Response>"""


def sign(text: str, element: str = "Assertion", key: Any = KEY, **changed: Any) -> str:
    """With an enveloped signature of the first element of that name, after its Issuer."""
    root = etree.fromstring(text)
    [target, *_] = root.xpath(f"//*[local-name() = '{element}']")
    made = signature(target, key, **changed)
    issuer = target.find("a:Issuer", NAMESPACES)
    target.insert(0 if issuer is None else 1, made)
    return etree.tostring(root).decode()


def signature(target: Any, key: Any = KEY, **changed: Any) -> Any:
    said = {"uri": f"#{target.get('ID')}", "transforms": (ENVELOPED, EXCLUSIVE), "c14n": EXCLUSIVE,
            "method": RSA_SHA256, "digest": SHA256, "hash": hashes.SHA256(), "extra": "", "inclusive": "",
            "more": "", "comments": False} | changed
    prefixes = said["inclusive"].split() or None
    signed = etree.tostring(target, method="c14n", exclusive=True, with_comments=said["comments"], with_tail=False,
                            inclusive_ns_prefixes=prefixes)
    digest = base64.b64encode(hashlib.new(said["digest"].rpartition("#")[2], signed).digest()).decode()
    inside = f'<ec:InclusiveNamespaces xmlns:ec="{EXCLUSIVE}" PrefixList="{said["inclusive"]}"/>' if prefixes else ""
    transforms = "".join(f'<ds:Transform Algorithm="{one}">{inside if one == EXCLUSIVE else ""}</ds:Transform>'
                         for one in said["transforms"])
    made = etree.fromstring(f"""<ds:Signature xmlns:ds="{DS}"><ds:SignedInfo>
<ds:CanonicalizationMethod Algorithm="{said['c14n']}"/><ds:SignatureMethod Algorithm="{said['method']}"/>
<ds:Reference URI="{said['uri']}"><ds:Transforms>{transforms}</ds:Transforms>
<ds:DigestMethod Algorithm="{said['digest']}"/><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>{said['more']}
</ds:SignedInfo><ds:SignatureValue/>{said['extra']}</ds:Signature>""")
    information = etree.tostring(made[0], method="c14n", exclusive=True, with_tail=False)
    made[1].text = base64.b64encode(_raw(key, information, said["hash"])).decode()
    return made


def _raw(key: Any, what: bytes, algorithm: Any) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(what, padding.PKCS1v15(), algorithm)
    size = key.key_size // 8
    return b"".join(one.to_bytes(size) for one in decode_dss_signature(key.sign(what, ec.ECDSA(algorithm))))


def encrypt(inner: str, key: Any = WEIRS, **changed: Any) -> str:
    """Of an assertion: an EncryptedAssertion, by AES-256-GCM and RSA-OAEP with SHA-256."""
    said = {"content": XENC11 + "aes256-gcm", "transport": XENC11 + "rsa-oaep", "mask": XENC11 + "mgf1sha256",
            "digest": SHA256, "size": 32, "parameters": "", "flip": False, "twice": False} | changed
    secret, nonce = os.urandom(said["size"]), os.urandom(12)
    if said["content"].endswith("-cbc"):
        sealed = _cbc(secret, inner.encode())
    else:
        sealed = nonce + AESGCM(secret).encrypt(nonce, inner.encode(), None)
    if said["flip"]:
        sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    if said["transport"].endswith("rsa-1_5"):
        how: Any = padding.PKCS1v15()
    else:
        one = hashes.SHA256() if said["digest"] == SHA256 else hashes.SHA1()
        how = padding.OAEP(padding.MGF1(hashes.SHA256() if said["mask"] else hashes.SHA1()), one, None)
    wrapped = base64.b64encode(key.public_key().encrypt(secret, how)).decode()
    mask = f'<x11:MGF xmlns:x11="{XENC11}" Algorithm="{said["mask"]}"/>' if said["mask"] else ""
    digest = f'<ds:DigestMethod xmlns:ds="{DS}" Algorithm="{said["digest"]}"/>' if said["digest"] else ""
    carrier = (f'<x:EncryptedKey><x:EncryptionMethod Algorithm="{said["transport"]}">{said["parameters"]}{digest}{mask}'
               f"</x:EncryptionMethod><x:CipherData><x:CipherValue>{wrapped}</x:CipherValue></x:CipherData>"
               "</x:EncryptedKey>")
    return f"""<a:EncryptedAssertion xmlns:x="{XENC}"><x:EncryptedData Type="{XENC}Element">
<x:EncryptionMethod Algorithm="{said['content']}"/><ds:KeyInfo xmlns:ds="{DS}">{carrier * (1 + said['twice'])}
</ds:KeyInfo><x:CipherData><x:CipherValue>{base64.b64encode(sealed).decode()}</x:CipherValue></x:CipherData>
</x:EncryptedData></a:EncryptedAssertion>"""


def _cbc(secret: bytes, what: bytes) -> bytes:
    pad, start = 16 - len(what) % 16, os.urandom(16)
    work = Cipher(algorithms.AES(secret), modes.CBC(start)).encryptor()
    return start + work.update(what + bytes(pad - 1) + bytes([pad])) + work.finalize()


def form(text: str, relay: str) -> str:
    return urlencode({"SAMLResponse": base64.b64encode(text.encode()).decode(), "RelayState": relay})
