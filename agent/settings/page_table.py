"""Pure: [web] and [metrics]: the tables of their fields, and what must hold between them."""
from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

from agent.settings import fields as kinds
from agent.settings.fields import Field, Report, Section


class Web(msgspec.Struct, frozen=True):
    """The page; nothing is served without `url`."""

    url: str | None = None            # an origin, as browsers write it
    listen: tuple[str, int] | None = None     # None: RUN/web.sock
    tls_certificate: str | None = None
    tls_key: str | None = None
    idle: int = 1800                  # seconds
    operators: tuple[str, ...] = ()
    auditors: tuple[str, ...] = ()


class Metrics(msgspec.Struct, frozen=True):
    """For monitoring; nothing is served without `listen`."""

    listen: tuple[str, int] | None = None     # kinds.AT_SOCKET: RUN/metrics.sock

    @property
    def place(self) -> tuple[str, int] | None:
        """None: the Unix socket."""
        return None if self.listen == kinds.AT_SOCKET else self.listen


WEB: Final = Section("web", Web, False, "The page at which approvers answer, in a browser; they log in by the "
    "[[provider]]s and [[saml_provider]]s.", (
    Field("url", kinds.PAGE, "Its address as browsers have it.  Providers send people back to `url`/login/NAME/back, "
          "and with SAML to `url`/saml/NAME/acs: they must know these.  Default: there is no page.", None,
          "https://weir.lab.example"),
    Field("listen", kinds.LISTEN, "`unix`: RUN/web.sock, for `ssh -L` or a server on this host that has the "
          "certificate; or an address, which is a loopback one where there is no TLS.", kinds.UNIX, "10.77.0.2:8443"),
    Field("tls_certificate", kinds.PATH, "Its certificate and those above it, PEM.", None, "/etc/weir/web.pem"),
    Field("tls_key", kinds.PATH, "Its key, PEM; root's, mode 0600.  A reload reads both again.", None,
          "/etc/weir/credentials/web.key"),
    Field("idle", kinds.duration("1m", "1d"), "A login at the page ends when nobody has used it for so long, and as "
          "each does after its provider's `max_session`.", "30m"),
    Field("operators", kinds.several(kinds.NAME), "Groups whose members may end sessions there.", [], ["dba"]),
    Field("auditors", kinds.several(kinds.NAME), "Groups whose members see there which sessions are open, and "
          "recordings.", [], ["audit"]),
))
METRICS: Final = Section("metrics", Metrics, False, "Figures of this Weir for Prometheus at /metrics, and for whoever "
    "asks whether it works /healthz and /readyz.", (
    Field("listen", kinds.METRICS, "`unix`: RUN/metrics.sock; or a loopback address, which every process of this host "
          "that is no crew's may read.  Default: nothing is served.", None, "127.0.0.1:9464"),
))


def check_web(report: Report) -> None:
    web, runtime = report.made.get(("web",)), report.made.get(("runtime",))
    if web is None:
        return
    if web.url is None and web != Web(idle=web.idle, operators=web.operators, auditors=web.auditors):
        report.add(("web", "url"), f"is missing, and without it there is no page; {kinds.PAGE.right} would be right")
    if (web.tls_certificate is None) != (web.tls_key is None):
        there, missing = ("tls_key", "tls_certificate") if web.tls_key else ("tls_certificate", "tls_key")
        report.add(("web", there), f"needs `{missing}`")
    if web.listen is None and web.tls_key:
        report.add(("web", "tls_key"), "is not used at a Unix socket: whoever stands before it has the certificate")
    if web.listen is not None and not web.tls_key and not kinds.is_loopback(web.listen[0]):
        report.add(("web", "listen"), "is open to others than this machine, and without TLS: name `tls_certificate` "
                   "and `tls_key`, or a loopback address")
    if web.url and web.url.startswith("http:") and web.tls_key:
        report.add(("web", "url"), "is http, and there is a certificate: https would be right")
    if web.listen in listeners(report):
        report.add(("web", "listen"), "is the enforcer's own listener")
    metrics = report.made.get(("metrics",))
    page = (web.listen,) if web.url and web.listen else ()
    if metrics is not None and metrics.listen in (*listeners(report), *page):
        report.add(("metrics", "listen"), "is another listener of Weir's; another port would be right")
    others = (runtime.user, runtime.audit_user, runtime.identity_user, runtime.notify_user) if runtime else ()
    if (web.url or (metrics and metrics.listen)) and runtime and runtime.web_user in others:
        report.add(("runtime", "web_user"), "is another process' user too: whoever breaks the page would have what "
                   "that one has")


def page_place(report: Report) -> tuple[str, int] | None:
    """Host and port of the page."""
    web = report.made.get(("web",))
    if web is None or web.url is None:
        return None
    found = urlsplit(web.url)
    return found.hostname or "", found.port or (443 if found.scheme == "https" else 80)


def listeners(report: Report) -> set[tuple[str, int]]:
    enforcer = report.made.get(("enforcer",))
    return {(host, enforcer.port) for host in ("127.0.0.1", "::1", "localhost")} if enforcer else set()
