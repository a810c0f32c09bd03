"""SAML 2.0, as far as a browser's single sign-on needs it: Weir is a service provider (docs/decisions/0026).

    tree          bytes -> XML without anything but elements, attributes and text
    keys          keys and certificates: which count
    signatures    a signed element -> the very bytes that were signed
    encryption    an encrypted assertion -> its bytes
    envelope      a response -> the one assertion that is signed, or nothing
    times         of SAML's form
    assertion     that assertion -> claims, where it is for this login, now
    metadata      what a provider says of itself
    request       a login -> the address that a browser goes to
    logout        what ends a session: requests that came, and those of Weir's own
    answer        the form that a browser posts -> the response
    remote        one provider: its metadata, its assertions that were used (edge)

Specifications: SAML 2.0 Core, Bindings, Profiles and Metadata (OASIS); XML Signature 1.1 and XML Encryption 1.1.
"""
