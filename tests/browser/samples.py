"""What the pages are shown with: as crews ask, and as those would who want to be misread."""
from __future__ import annotations

import time

from msgspec import structs

from agent.contract.messages import HoldView, SessionView
from enforcer.recording.paged import HistoryPage, Line, LinesPage, Past, RecordedSession, SessionsPage

SECOND = 10**9
MINUTE = 60 * SECOND
STATEMENT = """-- monthly clean-up, asked for by the retention task
DELETE FROM public.orders o
 USING public.customers c
 WHERE o.customer = c.id
   AND c.closed_at < $1
   AND o.total < 1000.00 AND o.note <> 'keep'"""
PLAN = """Delete on orders o  (cost=26.50..1289.44 rows=0 width=0)
  ->  Hash Join  (cost=26.50..1289.44 rows=1204 width=12)
        Hash Cond: (o.customer = c.id)
        ->  Seq Scan on orders o  (cost=0.00..1094.00 rows=48210 width=14)
              Filter: ((total < 1000.00) AND (note <> 'keep'::text))
        ->  Hash  (cost=24.00..24.00 rows=200 width=10)
              ->  Seq Scan on customers c  (cost=0.00..24.00 rows=200 width=10)"""
TOOL = "tool run_sql of agent 'Data steward' in task retention of crew billing"


def hold(ticket: str = "k3v9x2qa", **more: object) -> HoldView:
    now = time.time_ns()
    view = HoldView(
        ticket, now - 40 * SECOND, now + 14 * MINUTE, "keycloak:ada", "billing", 4711,
        "/srv/crews/billing/bin/python3.11",
        "orders", "shop", "sql:delete public.orders, sql:select public.customers", STATEMENT, ("2024-01-01",),
        ("deletes-need-a-dba",), ("dba",), False, "s-20261128-1", plan=PLAN, rows=1204, reported=TOOL)
    return structs.replace(view, **more)


def holds() -> list[HoldView]:
    now = time.time_ns()
    return [
        hold(),
        hold("m2c7hq4z", since=now - 30 * SECOND, until=now + 3 * MINUTE, subject="local:etl", workload="nightly",
             action="sql:update public.prices", text="UPDATE prices SET net = net * $1 WHERE sku LIKE 'A-%'",
             parameters=("1.05",), wanted=2, assents=("keycloak:eve",), reason_required=True,
             break_glass=("oncall",), escalates=now + MINUTE, plan="being asked for", rows=-1, reported=""),
        hold("p5n8tw3c", since=now - 20 * SECOND, form="elevation", action="elevate for 1 h", text="", parameters=(),
             workload="", pid=0, exe="", database="", reason="incident 4711: orders are stuck", plan="", rows=-1,
             reported=""),
        hold("z7j4rb6y", since=now - 900 * SECOND, until=now + 26 * MINUTE, state="approved", reuse="shape",
             assents=("keycloak:bob",), action="sql:insert public.audit_log",
             text="INSERT INTO audit_log (at, what) VALUES (now(), $1)", parameters=("import",), plan="", rows=1),
        hold("k3u7be2a", since=now - 10 * SECOND, reuse="command", reuse_for=3600, covers="k8s:delete of pods in shop",
             exe="/usr/bin/kubectl", target="cluster", database="", action="k8s:delete pods/shop/web-1",
             text="DELETE /api/v1/namespaces/shop/pods/web-1", parameters=(), plan="", rows=-1, reported=""),
    ]


HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"


def hostile(ticket: str = "q6w6e6r6") -> HoldView:
    """Markup, bidi, NULs, letters that pass for others, and a lot of it, wherever a crew may choose the words."""
    tricks = HOSTILE + "\u202eevil\u2066\x00\x1b[2J\u200b \u043e\u0440en"
    return hold(
        ticket, subject=f"local:{HOSTILE}", workload="crew\u202e", exe=f"/tmp/{tricks}" + "x" * 300, target="orders",
        database=tricks, action=tricks + "A" * 3900, text=(tricks + "\nSELECT '" + "y" * 4000)[:4000],
        parameters=(tricks, "z" * 500, *[""] * 20), rules=(tricks,), approvers=("dba",), reason=tricks,
        plan=(tricks + "\n") * 30, reported=tricks * 4, session=tricks,
        reuse="command", covers=tricks)


def sessions() -> list[SessionView]:
    now = time.time_ns()
    return [
        SessionView("s-20261128-1", now - 90 * SECOND, "keycloak:ada", "billing", 4711, "orders", "shop", 42,
                    "held", TOOL),
        SessionView("s-20261128-2", now - 40 * SECOND, "local:etl", "nightly", 4802, "orders", "shop", 1, "active"),
        SessionView("f-20261128-3", now - 5 * SECOND, "local:etl", "nightly", 4803, "models", "", 0, "flow"),
    ]


def recorded() -> RecordedSession:
    began = time.time_ns() - 3600 * SECOND
    return RecordedSession(
        120, "s-20261128-0", began, began + 75 * SECOND, "keycloak:ada", "billing", 4711,
        "/srv/crews/billing/bin/python3.11", "postgresql", "orders", "shop", "ada", 4, 1, 1, "the client closed it")


def lines(after: int = 0) -> LinesPage:
    session, number = recorded(), 120 + after
    began = session.opened
    found = (
        Line(number, began, "opened", text="as ada, TLSv1.3, known by the kernel's hooks"),
        Line(number + 1, began + 200_000_000, "asked", 1, "permit", verb="query",
             text="SELECT id, email FROM customers WHERE id = $1", facts=(
                 ("with", "'17'"), ("asks", "sql:select public.customers"), ("rules", "readers"),
                 ("masked", "public.customers.email"))),
        Line(number + 2, began + 260_000_000, "answered", 1, "ok", text="SELECT 1, 1 row, 64 B, 1.9 ms",
             rows=("17 | a***@example.org",)),
        Line(number + 3, began + 900_000_000, "asked", 2, "hold", verb="query", text=STATEMENT, facts=(
            ("asks", "sql:delete public.orders"), ("rules", "deletes-need-a-dba"), ("ticket", "k3v9x2qa"))),
        Line(number + 4, began + 950_000_000, "hold", 2, "pending", text="k3v9x2qa"),
        Line(number + 5, began + 4_000_000_000, "hold", 2, "denied",
             text="k3v9x2qa by keycloak:bob: not on a Saturday"),
        Line(number + 6, began + 4_100_000_000, "answered", 2, "denied", text="42501"),
        Line(number + 7, began + 5_000_000_000, "asked", 3, "permit", actor="weir", verb="catalogue", erased=True),
        Line(number + 8, began + 75 * SECOND, "closed", text="the client closed it; 4 operations, 1 denied, 1 held"),
    )
    return LinesPage(session, found, number + 8, 0)


def recordings() -> SessionsPage:
    one = recorded()
    other = structs.replace(one, session="s-20261127-9", closed=0, denied=0, held=0, operations=912)
    return SessionsPage((one, other), 77)


def history() -> HistoryPage:
    now = time.time_ns()
    return HistoryPage((
        Past(now - 3600 * SECOND, "sql:delete public.orders", "orders", "denied", "keycloak:bob", "not on a Saturday",
             "aaaabbbb", "keycloak:ada", "hold"),
        Past(now - 7200 * SECOND, "sql:insert public.audit_log", "orders", "used", "keycloak:bob", "", "ccccdddd",
             "keycloak:ada", "ticket"),
        Past(now - 86400 * SECOND, "connect", "ledger", "refused", "", "no rule permits it", "", "keycloak:ada"),
    ), 12, 55)
