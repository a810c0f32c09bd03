"""Which bytes of a response are believed: signatures, wrapping, encryption, what is no plain XML.  Keys and signatures
are real."""
from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import saml_idp as idp
from lxml import etree

from agent.contract.identity import FORM
from enforcer.identity.saml import envelope, signatures, tree
from enforcer.identity.saml.assertion import read
from enforcer.identity.saml.envelope import Keys, open_response
from enforcer.identity.saml.metadata import CERTIFICATES
from enforcer.words.errors import AuthenticationError

KEYS = Keys((idp.CERTIFICATE,), idp.WEIRS)
SIGNED = idp.response(idp.sign(idp.assertion()))
EVIL = idp.assertion(name="_evil").replace(">ada<", ">root<")


def opened(text: str | bytes, keys: Keys = KEYS) -> str:
    """The subject's name, where the answer is taken as a whole."""
    raw = text if isinstance(text, bytes) else text.encode()
    return str(read(open_response(raw, keys, idp.NOW), idp.asked(), idp.NOW).claims["NameID"])


def refused(text: str | bytes, said: str, keys: Keys = KEYS) -> None:
    with pytest.raises(AuthenticationError) as wrong:
        opened(text, keys)
    assert re.search(said, str(wrong.value)), wrong.value


# what is right


@pytest.mark.parametrize("text", [
    SIGNED, idp.sign(idp.response(idp.assertion()), "Response"), idp.sign(SIGNED, "Response"),
    idp.response(idp.sign(idp.assertion(), inclusive="xs")),
    '<?xml version="1.0" encoding="UTF-8"?>\n' + SIGNED,
    idp.sign(idp.response(idp.sign(idp.assertion(), inclusive="xs")), "Response")],
    ids=["assertion", "response", "both", "prefixes", "declaration", "both with prefixes"])
def test_signed(text: str) -> None:
    assert opened(text) == "ada"


def test_with_another_key_of_the_metadata() -> None:
    keys = Keys((idp.certificate(idp.STRANGE), idp.certificate(idp.EC), idp.CERTIFICATE), None)
    assert opened(SIGNED, keys) == "ada"
    method = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
    assert opened(idp.response(idp.sign(idp.assertion(), key=idp.EC, method=method)), keys) == "ada"


# what is not signed, or not so


def unsigned(text: str) -> str:
    root = etree.fromstring(text)
    for one in root.xpath("//ds:Signature", namespaces=idp.NAMESPACES):
        one.getparent().remove(one)
    return etree.tostring(root).decode()


@pytest.mark.parametrize(("text", "said"), [
    (idp.response(idp.assertion()), "neither it nor its assertion is signed"),
    (unsigned(SIGNED), "neither it nor its assertion is signed"),
    (SIGNED.replace(">ada<", ">root<"), "signature is wrong"),
    (idp.response(idp.sign(idp.assertion(), key=idp.STRANGE)), "signature is wrong"),
    (idp.sign(idp.response(idp.assertion()), "Response").replace(">ada<", ">root<"), "signature is wrong"),
    # Both signatures count: neither is an ornament.
    (idp.sign(idp.response(idp.sign(idp.assertion(), key=idp.STRANGE)), "Response"), "signature is wrong"),
    (idp.sign(SIGNED, "Response", key=idp.STRANGE), "signature is wrong")],
    ids=["unsigned", "stripped", "changed", "strange", "changed response", "strange inside", "strange outside"])
def test_not_signed_by_the_provider(text: str, said: str) -> None:
    refused(text, said)


def test_a_key_that_comes_with_it_is_not_believed() -> None:
    name = idp.certificate(idp.STRANGE).public_bytes(idp.Encoding.PEM).decode()
    mine = "".join(name.splitlines()[1:-1])
    extra = f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{mine}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>"
    refused(idp.response(idp.sign(idp.assertion(), key=idp.STRANGE, extra=extra)), "signature is wrong")


def test_what_a_signature_says_of_keys_is_not_looked_at() -> None:
    """Another key's value beside a right signature changes nothing."""
    number = idp.STRANGE.public_key().public_numbers().n
    value = idp.base64.b64encode(number.to_bytes(256)).decode()
    extra = (f"<ds:KeyInfo><ds:KeyValue><ds:RSAKeyValue><ds:Modulus>{value}</ds:Modulus><ds:Exponent>AQAB</ds:Exponent>"
             "</ds:RSAKeyValue></ds:KeyValue></ds:KeyInfo>")
    assert opened(idp.response(idp.sign(idp.assertion(), extra=extra))) == "ada"


def test_what_was_signed_is_the_element_that_was_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    for other in (b'<x ID="_assertion"/>', idp.assertion(name="_other").encode()):
        monkeypatch.setattr(signatures, "_verify", lambda element, certificate, now, other=other: other)
        refused(SIGNED, "is of something else")


def test_a_certificate_counts_in_its_time() -> None:
    late = Keys((idp.certificate(idp.KEY, idp.NOW - 20, idp.NOW - 10),), None)
    early = Keys((idp.certificate(idp.KEY, idp.NOW + 10, idp.NOW + 20),), None)
    for keys in (late, early):
        refused(SIGNED, "no key in the provider's metadata that is valid now", keys)


SHA1 = {"method": idp.DS + "rsa-sha1", "hash": idp.hashes.SHA1()}


@pytest.mark.parametrize(("changed", "said"), [
    (SHA1, "signature is wrong"),
    ({"digest": idp.DS + "sha1"}, "signature is wrong"),
    ({"method": idp.DS + "hmac-sha256"}, "signature is wrong"),
    ({"transforms": (idp.ENVELOPED, "http://www.w3.org/TR/1999/REC-xpath-19991116")}, "other transforms"),
    ({"transforms": (idp.ENVELOPED, "http://www.w3.org/TR/1999/REC-xslt-19991116")}, "other transforms"),
    ({"transforms": (idp.ENVELOPED,)}, "other transforms"), ({"transforms": ()}, "other transforms"),
    ({"transforms": (idp.ENVELOPED, idp.EXCLUSIVE + "WithComments")}, "other transforms"),
    ({"c14n": "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"}, "other transforms"),
    ({"uri": ""}, "does not refer to what it stands in"), ({"uri": "#_other"}, "does not refer to what it stands in"),
    ({"uri": "http://127.0.0.1/x"}, "does not refer to what it stands in"),
    ({"extra": "<ds:Object/>"}, "holds an object"),
    ({"more": f'<ds:Reference URI="#_assertion"><ds:DigestMethod Algorithm="{idp.SHA256}"/><ds:DigestValue/>'
              "</ds:Reference>"}, "to nothing else")],
    ids=lambda one: str(one)[-60:])
def test_signatures_of_another_form(changed: dict[str, Any], said: str) -> None:
    refused(idp.response(idp.sign(idp.assertion(), **changed)), said)


def test_each_weak_algorithm_would_pass_were_it_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above refuses is really signed."""
    monkeypatch.setattr(signatures, "METHODS", frozenset(signatures.SignatureMethod))
    monkeypatch.setattr(signatures, "DIGESTS", frozenset(signatures.DigestAlgorithm))
    for weak in (SHA1, {"digest": idp.DS + "sha1"}):
        assert opened(idp.response(idp.sign(idp.assertion(), **weak))) == "ada"


# wrapping (Somorovsky et al., On Breaking SAML, 2012, figures 5 and 6)


def parts(element: str) -> tuple[Any, Any, Any, Any]:
    """A right response, its assertion, the signature of that element, and an assertion that nobody signed."""
    root = etree.fromstring(SIGNED if element == "Assertion" else idp.sign(idp.response(idp.assertion()), "Response"))
    [mark] = root.xpath("//ds:Signature", namespaces=idp.NAMESPACES)
    [inner] = root.xpath("//a:Assertion", namespaces=idp.NAMESPACES)
    return root, inner, mark, etree.fromstring(EVIL)


def evil_response(root: Any) -> Any:
    made = copy.deepcopy(root)
    for one in made.xpath("//ds:Signature", namespaces=idp.NAMESPACES):
        one.getparent().remove(one)
    made.set("ID", "_evil-response")
    [inner] = made.xpath("//a:Assertion", namespaces=idp.NAMESPACES)
    made.replace(inner, etree.fromstring(EVIL))
    return made


def xsw1() -> Any:
    """The signature of an evil response holds the original response."""
    root, _, mark, _ = parts("Response")
    made = evil_response(root)
    root.remove(mark)
    mark.append(root)
    made.insert(1, mark)
    return made


def xsw2() -> Any:
    """As 1; the original response is a sibling before the detached signature."""
    root, _, mark, _ = parts("Response")
    made = evil_response(root)
    root.remove(mark)
    made.insert(1, root)
    made.insert(2, mark)
    return made


def xsw3() -> Any:
    """An evil assertion before the original."""
    root, inner, _, evil = parts("Assertion")
    inner.addprevious(evil)
    return root


def xsw4() -> Any:
    """The original is a child of the evil one."""
    root, inner, _, evil = parts("Assertion")
    root.replace(inner, evil)
    evil.append(inner)
    return root


def xsw5() -> Any:
    """The evil assertion holds the signature; the original is beside it."""
    root, inner, mark, evil = parts("Assertion")
    inner.remove(mark)
    evil.insert(1, mark)
    inner.addprevious(evil)
    return root


def xsw6() -> Any:
    """As 5; the original is in that signature."""
    root, inner, mark, evil = parts("Assertion")
    root.replace(inner, evil)
    inner.remove(mark)
    mark.append(inner)
    evil.insert(1, mark)
    return root


def xsw7() -> Any:
    """The original is in an Extensions element."""
    root, inner, _, evil = parts("Assertion")
    root.replace(inner, evil)
    extensions = etree.Element(f"{{{idp.NAMESPACES['p']}}}Extensions")
    extensions.append(inner)
    evil.addprevious(extensions)
    return root


def xsw8() -> Any:
    """The evil assertion holds the signature, and that an Object with the original."""
    root, inner, mark, evil = parts("Assertion")
    root.replace(inner, evil)
    inner.remove(mark)
    thing = etree.SubElement(mark, f"{{{idp.DS}}}Object")
    thing.append(inner)
    evil.insert(1, mark)
    return root


WRAPPED = [xsw1, xsw2, xsw3, xsw4, xsw5, xsw6, xsw7, xsw8]
STRAY = f"<ds:Signature xmlns:ds='{idp.DS}'/>"
MORE = "more than one|where none belongs|something else"


@pytest.mark.parametrize("make", WRAPPED)
@pytest.mark.parametrize("name", ["_evil", "_assertion", "_response"])
def test_wrapping_is_refused_by_form(make: Callable[[], Any], name: str) -> None:
    """Also where the evil element has the ID of the signed one."""
    text = etree.tostring(make()).decode()
    if name == "_evil":
        refused(text, MORE)
    else:
        refused(text.replace("_evil-response", name).replace("_evil", name), f"an ID stands twice|{MORE}|signature")


@pytest.mark.parametrize("make", WRAPPED)
def test_wrapping_gains_nothing_without_that(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is what was signed, with the form unchecked; who reads what came, reads the other."""
    def first(root: Any) -> Any:
        return root.find(envelope.ASSERTION)

    monkeypatch.setattr(envelope, "_only_assertion", first)
    monkeypatch.setattr(tree, "_check", lambda root: None)
    text = etree.tostring(make())
    assert etree.fromstring(text).find("a:Assertion/a:Subject/a:NameID", idp.NAMESPACES).text == "root"
    try:
        assert opened(text) == "ada"
    except AuthenticationError:
        pass


@pytest.mark.parametrize("text", [
    idp.sign(idp.response(idp.assertion() + EVIL), "Response"), idp.sign(idp.response(EVIL + idp.assertion())),
    idp.response(idp.sign(idp.assertion()) + idp.encrypt(EVIL)),
    idp.response(f"<p:Extensions>{EVIL}</p:Extensions>" + idp.sign(idp.assertion())),
    idp.response(idp.sign(idp.assertion(conditions=f"<a:Advice>{EVIL}</a:Advice>"))),
    idp.response(idp.sign(idp.assertion()) + "<a:Advice/>"),
    idp.response(idp.sign(idp.assertion()).replace("</a:Conditions>", f"{STRAY}</a:Conditions>")),
    idp.response(f"<p:Extensions>{STRAY}</p:Extensions>" + idp.sign(idp.assertion())),
    idp.response(idp.sign(idp.sign(idp.assertion()))),
    idp.response(idp.encrypt(idp.sign(idp.assertion())).replace("</x:EncryptedData>", f"</x:EncryptedData>{STRAY}")),
    idp.response("<p:Extensions>" + idp.sign(idp.assertion()) + "</p:Extensions>"),
    idp.response("<p:Extensions><p:Response/></p:Extensions>" + idp.sign(idp.assertion())),
    idp.response("<p:Status/>" + idp.sign(idp.assertion())),
    idp.response(f"<a:Issuer>{idp.ISSUER}</a:Issuer>" + idp.sign(idp.assertion()))])
def test_one_assertion_in_its_place(text: str) -> None:
    refused(text, MORE)


KEY_INFO = "<ds:KeyInfo>" + "<ds:KeyName>x</ds:KeyName>" * 6000 + "</ds:KeyInfo>"
NAMESPACES = "".join(f' xmlns:n{number}="urn:{number}"' for number in range(6500))
BODY = idp.response("").replace("<p:Status>", "<p:Extensions{}>{}</p:Extensions><p:Status>")


@pytest.mark.parametrize(("text", "said"), [
    (idp.response(idp.sign(idp.assertion(), extra=KEY_INFO)).replace(">ada<", ">root<"), "signature is wrong"),
    (idp.response(idp.sign(idp.assertion()).replace("<ds:Signature ", f"<ds:Signature{NAMESPACES} ")), "100 prefixes"),
    (BODY.format(NAMESPACES, "<n1:x/>" * 3000), "100 prefixes"),
    (BODY.format("", "<x>" * 40 + "<y/>" * 40_000 + "</x>" * 40), "holds no assertion"),
    (BODY.format(' xmlns:n="relative"', "<n:x/>"), "holds no assertion")],
    ids=["keys", "prefixes", "more prefixes", "elements", "relative"])
def test_nobody_keeps_the_process_busy(text: str, said: str) -> None:
    """Whoever has begun a login may post what they like: of a bounded time."""
    keys, begun = Keys([idp.certificate(idp.STRANGE)] * CERTIFICATES, idp.WEIRS), time.process_time()
    refused(text, said, keys)
    assert time.process_time() - begun < 1.5


# comments and whatever is not plain


@pytest.mark.parametrize(("old", "new"), [
    (">ada<", ">ada<!-- -->.evil<"), (">ada<", ">ada<?x y?>.evil<"), (">ada<", "><![CDATA[ada]]>.evil<"),
    ("<p:Status>", "<!-- --><p:Status>")])
def test_comments_and_the_like(old: str, new: str) -> None:
    """Signed by the provider with them: a canonicalization leaves comments out, and a reader may stop at them."""
    text = idp.response(idp.assertion()).replace(old, new)
    for signed in (idp.sign(text), idp.sign(text, comments=True), SIGNED.replace(old, new)):
        refused(signed if new.count("CDATA") == 0 else text, "DTD, a comment, CDATA or a processing instruction")


def test_a_comment_in_a_signed_name_would_pass_the_signature() -> None:
    """Why it has to be refused by itself: the signature holds all the same, and the text has two parts."""
    root = etree.fromstring(SIGNED.replace(">ada<", ">ad<!-- -->a<"))
    [name] = root.xpath("//a:NameID", namespaces=idp.NAMESPACES)
    assert name.text == "ad"
    [inner] = root.xpath("//a:Assertion", namespaces=idp.NAMESPACES)
    assert signatures.verified(inner, (idp.CERTIFICATE,), idp.NOW).find(".//a:NameID", idp.NAMESPACES).text == "ada"


def test_an_element_in_a_name_is_no_name() -> None:
    inner = idp.assertion(name_id="<a:NameID>ada<a:x/>.evil</a:NameID>")
    assert opened(idp.response(idp.sign(inner))) == "None"


BOMB = ('<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)) + "]>")


@pytest.mark.parametrize("text", [
    BOMB + SIGNED.replace(">ada<", ">&j;<"),
    '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + SIGNED.replace(">ada<", ">&x;<"),
    '<!DOCTYPE r SYSTEM "http://127.0.0.1:1/x.dtd">' + SIGNED, "<!DOCTYPE r>" + SIGNED,
    '<?xml version="1.0"?><!DOCTYPE r>' + SIGNED, '<?xml-stylesheet href="x"?>' + SIGNED])
def test_dtds_and_entities(text: str) -> None:
    refused(text, "DTD, a comment, CDATA or a processing instruction")


def test_an_entity_that_nobody_declared() -> None:
    refused(SIGNED.replace(">ada<", ">ada&x;.evil<"), "is no XML")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-7", "utf-32", "cp037"])
def test_another_encoding_hides_nothing(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE r>' + SIGNED
    refused(text.encode(encoding), "not UTF-8|DTD, a comment|no XML")


@pytest.mark.parametrize(("raw", "said"), [
    (b"", "is no XML"), (b"<", "is no XML"), (b"\xff", "not UTF-8"), (b"<r/>", "no SAML 2.0 response"),
    (b" " * (FORM + 1), "longer than"), (b"<r>" * 60 + b"</r>" * 60, "deeper than 50"),
    (b"<r>" * 20_000 + b"</r>" * 20_000, "is no XML"), (b'<r ID="a"><s Id="a"/></r>', "an ID stands twice"),
    (SIGNED[:-1].encode(), "is no XML"), (SIGNED.encode() + b"x", "is no XML")])
def test_garbage(raw: bytes, said: str) -> None:
    refused(raw, said)


def test_cut_at_every_byte() -> None:
    raw = SIGNED.encode()
    for end in range(0, len(raw), 7):
        with pytest.raises(AuthenticationError):
            opened(raw[:end])


# encryption


@pytest.mark.parametrize("changed", [
    {}, {"content": idp.XENC11 + "aes128-gcm", "size": 16},
    {"transport": idp.XENC + "rsa-oaep-mgf1p", "mask": "", "digest": idp.DS + "sha1"},
    {"transport": idp.XENC + "rsa-oaep-mgf1p", "mask": "", "digest": ""}])
def test_encrypted(changed: dict[str, Any]) -> None:
    assert opened(idp.response(idp.encrypt(idp.sign(idp.assertion()), **changed))) == "ada"
    assert opened(idp.sign(idp.response(idp.encrypt(idp.assertion(), **changed)), "Response")) == "ada"


@pytest.mark.parametrize(("inner", "changed", "said"), [
    (idp.assertion(), {}, "neither it nor its assertion is signed"),
    (idp.sign(idp.assertion(), key=idp.STRANGE), {}, "signature is wrong"),
    (idp.sign(idp.assertion()), {"key": idp.STRANGE}, "cannot be decrypted"),
    (idp.sign(idp.assertion()), {"flip": True}, "cannot be decrypted"),
    (idp.sign(idp.assertion()), {"size": 16}, "cannot be decrypted"),
    (idp.sign(idp.assertion()), {"parameters": "<x:OAEPparams>AA==</x:OAEPparams>"}, "cannot be decrypted"),
    (idp.sign(idp.assertion()), {"twice": True}, "not encrypted once"),
    (idp.sign(idp.assertion()), {"content": idp.XENC + "aes256-cbc"}, "otherwise than by AES-GCM"),
    (idp.sign(idp.assertion()), {"transport": idp.XENC + "rsa-1_5"}, "otherwise than by AES-GCM"),
    (EVIL + idp.sign(idp.assertion()), {}, "is no XML"),
    (f"<a:Advice xmlns:a='{idp.NAMESPACES['a']}'>{idp.sign(idp.assertion())}</a:Advice>", {}, "not one assertion"),
    (idp.sign(idp.assertion(conditions=f"<a:Advice>{EVIL}</a:Advice>")), {}, "not one assertion"),
    (idp.sign(idp.assertion()).replace("</a:Conditions>", f"{STRAY}</a:Conditions>"), {}, "where none belongs"),
    ("<!DOCTYPE r>" + idp.sign(idp.assertion()), {}, "DTD"), ("", {}, "is no XML")],
    ids=lambda one: str(one)[:40])
def test_encrypted_otherwise(inner: str, changed: dict[str, Any], said: str) -> None:
    refused(idp.response(idp.encrypt(inner, **changed)), said)


def test_nothing_to_decrypt_with() -> None:
    refused(idp.response(idp.encrypt(idp.sign(idp.assertion()))), "has no key_file here", Keys(KEYS.certificates, None))
