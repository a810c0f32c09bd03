"""Pure: [[provider]] and [[saml_provider]]: the tables of their fields, and what must hold between them and
workloads."""
from __future__ import annotations

from typing import Final

import msgspec

from agent.settings import fields as kinds
from agent.settings.fields import Field, Report, Section


class ProviderEntry(msgspec.Struct, frozen=True):
    """An identity provider; `agent.contract.identity.Provider` is what its process is told of it."""

    name: str
    issuer: str
    client_id: str
    client_secret_file: str | None
    audience: str | None              # of access tokens and token files; None: client_id
    algorithms: tuple[str, ...]
    ca: str | None
    scopes: tuple[str, ...]
    subject_claim: str
    groups_claim: tuple[str, ...]
    groups: dict[str, str]            # value of that claim -> Weir's group
    required: dict[str, str | bool | int]
    max_session: int                  # seconds
    refresh: int                      # seconds
    introspect: bool = False
    hosts: tuple[str, ...] = ()


class SamlEntry(msgspec.Struct, frozen=True):
    """As `ProviderEntry`; its contract is `SamlProvider`."""

    name: str
    issuer: str                       # its entity ID
    entity_id: str                    # Weir's
    metadata: str | None
    metadata_url: str | None
    ca: str | None
    key_file: str | None
    port: int | None                  # of the loopback listener; None: any
    subject_attribute: str | None     # None: the NameID
    groups_attribute: str
    groups: dict[str, str]            # value of that attribute -> Weir's group
    required: dict[str, str]
    max_session: int                  # seconds


PROVIDER: Final = Section("provider", ProviderEntry, True, "An OpenID Connect provider: who may `weir login`, and "
    "whose tokens are believed.", (
    Field("name", kinds.PROVIDER_NAME, "Subjects of its are `NAME:` and the subject claim.", example="corp"),
    Field("issuer", kinds.ISSUER, "Its issuer identifier, as its tokens have it; its configuration is below it, at "
          "/.well-known/openid-configuration.", example="https://idp.lab.example/realms/corp"),
    Field("client_id", kinds.TEXT, "Weir's client there.", example="weir"),
    Field("client_secret_file", kinds.PATH, "File that holds the client's secret and nothing else; root's, mode 0600. "
          "A public client has none.", None, "/etc/weir/credentials/corp"),
    Field("audience", kinds.TEXT, "That access tokens and token files must be for.  Default: the client_id.", None,
          "weir"),
    Field("algorithms", kinds.several(kinds.choice(*kinds.ALGORITHMS), least=1), "Signature algorithms that count.",
          list(kinds.ALGORITHMS[:4])),
    Field("ca", kinds.PATH, "Roots for its certificate, PEM.  Default: the system's.", None, "/etc/weir/idp-ca.pem"),
    Field("hosts", kinds.several(kinds.HOST_PORT), "Other hosts than the issuer's that its configuration may send Weir "
          "to.", [], ["oauth2.lab.example", "keys.lab.example:8443"]),
    Field("scopes", kinds.several(kinds.SCOPE), "That are asked for; `openid` always is.", [], ["profile"]),
    Field("subject_claim", kinds.TEXT, "Claim that names the subject; it must never be given to another person.",
          "sub"),
    Field("groups_claim", kinds.CLAIM_PATH, "Claim that lists groups or roles; inner ones after a dot.", "groups",
          "realm_access.roles"),
    Field("groups", kinds.GROUPS, "As `[provider.groups]`: value of that claim, and the group of Weir's that it puts "
          "the subject into.  Other values count for nothing.", {}, {"dba": "dba", "/staff/data": "data"}),
    Field("required", kinds.REQUIRED_CLAIMS, "As `[provider.required]`: claims that must be there, with this very "
          "value; `true` for a text or number is not enough.", {}, {"email_verified": True}),
    Field("max_session", kinds.duration("1m", "30d"), "A login ends after this, whatever the provider says.", "12h"),
    Field("refresh", kinds.duration("1s", "1h"), "How often a login is refreshed there, at least: groups are read "
          "again, and who was locked out there is out here.", "1m"),
    Field("introspect", kinds.BOOLEAN, "Ask there as often (RFC 7662) whether a token that is not refreshed, that of a "
          "`token_file`, still holds.  Needs `client_secret_file`.", False),
), attribute="providers")
SAML: Final = Section("saml_provider", SamlEntry, True, "A SAML 2.0 identity provider: who may `weir login`, by a "
    "browser on this machine.", (
    Field("name", kinds.PROVIDER_NAME, "Subjects of its are `NAME:` and their name there.", example="sso"),
    Field("issuer", kinds.ENTITY, "Its entity ID, as its metadata and its answers have it.",
          example="https://idp.lab.example/saml"),
    Field("entity_id", kinds.ENTITY, "Weir's own there: the audience of its answers.", example="urn:weir:lab"),
    Field("metadata", kinds.PATH, "File with its metadata, one EntityDescriptor; root's, and nobody else writes it.  A "
          "reload reads it again.", None, "/etc/weir/sso.xml"),
    Field("metadata_url", kinds.HTTPS, "Instead of `metadata`: where it is, read again after an hour.", None,
          "https://idp.lab.example/metadata.xml", instead=True),
    Field("ca", kinds.PATH, "Roots for the certificate of `metadata_url`, PEM.  Default: the system's.", None,
          "/etc/weir/idp-ca.pem", instead=True),
    Field("key_file", kinds.PATH, "Weir's RSA key, PEM; root's, mode 0600.  With it requests are signed, and encrypted "
          "assertions read.", None, "/etc/weir/credentials/saml.pem"),
    Field("port", kinds.HIGH_PORT, "Port of the address that answers are posted to, http://127.0.0.1:PORT/acs/NAME, "
          "for a provider that must know it.  Default: any that is free.", None, 15439),
    Field("subject_attribute", kinds.TEXT, "Attribute that names the subject, never given to another person.  Default: "
          "the NameID, where it is not transient.", None, "uid"),
    Field("groups_attribute", kinds.TEXT, "Attribute that lists groups or roles.", "groups", "Role"),
    Field("groups", kinds.GROUPS, "As `[saml_provider.groups]`: value of that attribute, and the group of Weir's that "
          "it puts the subject into.  Other values count for nothing.", {}, {"dba": "dba", "/staff/data": "data"}),
    Field("required", kinds.REQUIRED_ATTRIBUTES, "As `[saml_provider.required]`: attributes that must be there, with "
          "this one value.", {}, {"department": "data"}),
    Field("max_session", kinds.duration("1m", "30d"), "A login ends after this, or when the provider's answer says, "
          "whichever is sooner: SAML has no refresh.", "12h"),
), attribute="saml")


def check_identities(report: Report) -> None:
    providers = {one.name: one for _, one in report.entries("provider")}
    by_saml = {one.name for _, one in report.entries("saml_provider")}
    # Of these nobody knows the names.
    wrong = report.wrong("provider") or report.wrong("saml_provider")
    for path, one in report.entries("provider"):
        if one.introspect and one.client_secret_file is None:
            report.add((*path, "introspect"), "nobody is answered there who does not say who it is: name "
                       "`client_secret_file` too")
    for path, workload in report.entries("workload"):
        if workload.person and workload.unit:
            report.add((*path, "person"), "nobody starts a unit: leave `unit` or `person` out")
        if workload.person and workload.identity:
            report.add((*path, "person"), "it has an `identity` of its own: leave one of them out")
        if workload.person and not providers and not by_saml and not wrong:
            report.add((*path, "person"), "nobody can log in: there is no [[provider]] or [[saml_provider]]")
        if workload.identity is None or wrong:
            continue
        provider = providers.get(workload.identity.provider)
        if workload.identity.provider in by_saml:
            report.add((*path, "identity"), f"{workload.identity.provider!r} is a [[saml_provider]], which knows "
                       "people alone; a [[provider]] would be right")
        elif provider is None:
            known = ", ".join(providers) or "none"
            report.add((*path, "identity"), f"there is no [[provider]] {workload.identity.provider!r}; there is: "
                       f"{known}")
        elif workload.identity.token_file is None and provider.client_secret_file is None:
            report.add((*path, "identity"), f"names no token_file, and provider {provider.name!r} no "
                       "client_secret_file: one of them would be right")


def check_saml(report: Report) -> None:
    enforcer = report.made.get(("enforcer",))
    for path, one in report.entries("saml_provider"):
        if (one.metadata is None) == (one.metadata_url is None):
            there = "both are there" if one.metadata else "none is there"
            report.add((*path, "metadata"), f"{there}; one of `metadata`, a file, and `metadata_url`, an address, "
                       "would be right")
        if one.ca and one.metadata_url is None:
            report.add((*path, "ca"), "is not used without `metadata_url`: leave it out")
        if enforcer and one.port == enforcer.port:
            report.add((*path, "port"), f"{one.port} is the enforcer's own; another would be right")
