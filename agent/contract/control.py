"""What a caller and the agent say to each other over the control socket, RUN/control.sock.

Each message is one frame: 4 bytes little-endian length, then msgpack of one tagged struct.  Descriptors travel by
SCM_RIGHTS with the first bytes of a frame.  A connection carries one request.

After `Run` the connection itself is handed to the launcher: from `Started` on, launcher and caller speak directly.  The
caller sends nothing between its `Run` and the answer.  Everything that a person may have typed is bytes, because file
names, arguments and environments need not be UTF-8.
"""
from __future__ import annotations

import msgspec

from agent.contract import frames
from agent.contract.ledger import Alarm, Connect
from agent.contract.locks import Lock
from agent.contract.messages import HoldView, SessionView
from agent.contract.notify import Result

LIMIT = 4 << 20                       # bytes; execve(2) takes less than this of arguments and environment
SPOKEN_LIMIT = 256                    # bytes of a frame that a caller sends after `Started`
SOCKETS = 1000                        # of one Adopted
EXE = 1000                            # characters of one's program
HEADER = frames.HEADER


class Message(msgspec.Struct, frozen=True, tag=True):
    pass


class Run(Message, frozen=True):
    """Start a command.  The caller's own descriptors 0, 1 and 2 come with it, always all three."""

    workload: str
    user: str                         # named by --user; empty: the caller
    argv: tuple[bytes, ...]
    cwd: bytes
    env: dict[bytes, bytes]
    tty: bool                         # the launcher makes a terminal; descriptors that are none are passed through
    rows: int = 0
    columns: int = 0
    network: str = ""                 # "private" | "host"; empty: as the workload's configuration says


class Started(Message, frozen=True):
    """The pid is of the initial pid namespace.  With `tty`, the master of the terminal comes with it."""

    pid: int
    notes: tuple[str, ...] = ()       # what the caller should know


class Exited(Message, frozen=True):
    """As a shell's $?: 128 + n after signal n.  Nothing of the command is left when this is said."""

    code: int


class Failed(Message, frozen=True):
    """The command did not run.  125: Weir's own error or refusal; 126, 127: as a shell's."""

    code: int
    text: str


class Signal(Message, frozen=True):
    number: int


class Resize(Message, frozen=True):
    rows: int
    columns: int


# Everything else: one question, one answer, then the agent closes.


class AskStatus(Message, frozen=True):
    """Anybody who is no crew.  Answered by Status."""


class ListApprovals(Message, frozen=True):
    """Approvers and root.  Answered by Approvals."""


class Decide(Message, frozen=True):
    """Approvers and root.  Answered by Answered."""

    ticket: str
    approve: bool
    reason: str = ""


class BreakGlass(Message, frozen=True):
    """Anybody who is no crew; whether the rule names a group of theirs is the enforcer's to say.  Answered by
    Answered."""

    ticket: str
    reason: str


class Revoke(Message, frozen=True):
    """Anybody who is no crew, of his own; who may answer it, of any.  Answered by Answered."""

    ticket: str
    reason: str = ""


class Elevate(Message, frozen=True):
    """Anybody who is no crew, for himself.  Answered by Requested."""

    target: str
    seconds: int
    reason: str = ""


class Requested(Message, frozen=True):
    ticket: str = ""
    error: str = ""


class AskSessions(Message, frozen=True):
    """Members of the auditors' group and root.  Answered by OpenSessions."""


class KillSession(Message, frozen=True):
    """Root.  Answered by Killed."""

    session: str                      # or flow; or the beginning of its name
    reason: str = ""


class Killed(Message, frozen=True):
    error: str = ""
    session: SessionView | None = None        # which it was


class PutLock(Message, frozen=True):
    """Root.  In place of what was locked by the same name.  Answered by LockDone."""

    kind: str                         # agent.contract.locks.KINDS
    name: str
    reason: str = ""
    seconds: int = 0                  # 0: until it is unlocked


class LiftLock(Message, frozen=True):
    """Root.  Answered by LockDone."""

    kind: str
    name: str


class LockDone(Message, frozen=True):
    error: str = ""
    ended: int = 0                    # sessions and flows
    notes: tuple[str, ...] = ()       # what else should be known


class Stop(Message, frozen=True):
    """Root.  Agent, enforcer and recorder end, the block stays.  Answered by Answered before that; the connection is
    closed when it is done."""


class Release(Message, frozen=True):
    """Root.  As Stop, and the block is taken away: Answered says whether, at the end."""

    kill: bool = False                # end what runs in the slice first


class Reload(Message, frozen=True):
    """Root.  Answered by Answered."""


class AskKeys(Message, frozen=True):
    """Root.  Answered by Keys."""


class KeyView(msgspec.Struct, frozen=True):
    """Never the key."""

    name: str
    use: str
    id: str                           # first 16 hex digits of its BLAKE2b-256
    since: int                        # nanoseconds UTC


class AuthorityView(msgspec.Struct, frozen=True):
    target: str
    of: str                           # "servers": crews trust it; "clients": the target's server does; of an SSH host
                                      # "hosts", the host keys that crews know, and "users", which sshd trusts
    serial: str                       # hex; of SSH the fingerprint, "SHA256:..."
    until: str                        # ISO 8601; "": it has no end
    next: bool                        # its successor is prepared


class Keys(Message, frozen=True):
    keys: tuple[KeyView, ...]
    authorities: tuple[AuthorityView, ...]


class RotateKey(Message, frozen=True):
    """Root.  Answered by KeyRotated."""

    name: str
    reason: str = ""


class KeyRotated(Message, frozen=True):
    """`error` empty: the new one is in force.  Keys by their names."""

    error: str = ""
    before: str = ""
    after: str = ""


SERVERS, NOW, PREPARE, FINISH = "servers", "now", "prepare", "finish"


class RotateAuthority(Message, frozen=True):
    """Root.  SERVERS: that crews trust; its successor signs once what runs has ended, or NOW.  PREPARE: that the
    target's server trusts; its successor is made, and signs from FINISH on.  Answered by AuthorityRotated."""

    target: str
    step: str
    reason: str = ""


class AuthorityRotated(Message, frozen=True):
    error: str = ""
    certificate: str = ""             # PEM: the successor's; of PREPARE the present one's before it
    waiting: int = 0                  # starts of workloads that do not know it
    in_force: bool = False            # it signs


class Adopt(Message, frozen=True):
    """Root.  What runs of a unit is a crew's from now on, all of it or nothing; the caller has written its drop-in.
    Answered by Adopted."""

    unit: str
    cgroups: tuple[str, ...] = ()     # of what runs outside of the slice, as proc(5) has them
    end: str = ""                     # what becomes of what it has open: "end", "report", "restart"; empty: only asked


class Abandon(Message, frozen=True):
    """Root.  Its drop-in is gone: what runs outside of the slice is nobody's any more.  Answered by Answered."""

    unit: str


class TestNotify(Message, frozen=True):
    """Root.  A test goes to every place that holds are told at.  Answered by NotifyTested."""


class NotifyTested(Message, frozen=True):
    error: str = ""
    results: tuple[Result, ...] = ()


class AskLedger(Message, frozen=True):
    """Members of the auditors' group and root.  Answered by LedgerView."""


class Acknowledge(Message, frozen=True):
    """Root.  The alarms were looked at: the state follows them no more.  Answered by Answered."""


class Login(Message, frozen=True):
    """Anybody but root.  Answered by LoginBegun; what comes of it is asked by AwaitLogin."""

    provider: str = ""                # empty: the only one
    port: int = 0                     # of the caller's loopback listener; 0: the device flow


class LoginBegun(Message, frozen=True):
    error: str = ""
    session: str = ""
    provider: str = ""
    url: str = ""                     # where the person goes
    user_code: str = ""
    complete: str = ""                # the same with the code in it
    seconds: int = 0                  # in which it must be done
    port: int = 0                     # where the answer comes to: the caller's, or one that the provider must know


class FinishLogin(Message, frozen=True):
    """Who began it: what came back to its listener, a query or with SAML a form.  Answered by Answered."""

    session: str
    query: str

    def __repr__(self) -> str:
        return f"FinishLogin(session={self.session!r})"


class AwaitLogin(Message, frozen=True):
    """Who began it.  Answered by LoginState within some seconds, however it stands then."""

    session: str


class LoginState(Message, frozen=True):
    waiting: bool = False             # ask again
    error: str = ""                   # it came to nothing


class Logout(Message, frozen=True):
    """Of the caller.  Answered by Answered."""


class AskWhoAmI(Message, frozen=True):
    """Anybody who is no crew.  Answered by WhoAmI."""


class WhoAmI(Message, frozen=True):
    """Without a login the local user."""

    subject: str
    groups: tuple[str, ...]
    provider: str = ""                # empty: not logged in
    since: int = 0                    # nanoseconds UTC
    until: int = 0                    # seconds UTC, at the latest
    session: str = ""


class Answered(Message, frozen=True):
    """`error` empty: done."""

    error: str = ""


class LoggedOut(Message, frozen=True):
    """`error` empty: done here."""

    error: str = ""
    url: str = ""                     # where a browser logs out at the provider, too; "": nowhere


class Refused(Message, frozen=True):
    """The peer may not ask this, or the question is malformed."""

    text: str


class ServiceView(msgspec.Struct, frozen=True):
    """Enforcer or recorder."""

    pid: int                          # 0: not running
    since: int                        # nanoseconds UTC of the last start
    restarts: int
    error: str = ""                   # why it does not run, or what is wrong with it


class TargetView(msgspec.Struct, frozen=True):
    name: str
    protocol: str
    hosts: tuple[str, ...]
    port: int
    addresses: tuple[str, ...]        # what is known of the hosts now


class WorkloadView(msgspec.Struct, frozen=True):
    """One start that has not ended."""

    workload: str
    user: str
    pid: int
    since: int
    command: str
    owner: int
    root: bool = False                # its user is uid 0 inside
    degraded: tuple[str, ...] = ()    # what makes it weaker than it looks, and how to mend it
    network: str = "host"


class ConfigurationView(msgspec.Struct, frozen=True):
    """Which one is in force: table `configured` of the recording names it by the same digest."""

    digest: str                       # hex, over `files`
    since: int                        # nanoseconds UTC
    files: dict[str, str]             # -> BLAKE2b-256 of what was read, hex


class Status(Message, frozen=True):
    state: str                        # "starting" | "enforcing" | "blocked" | "degraded" | "stopping"
    reasons: tuple[str, ...]          # why not enforcing
    runtime: str
    since: int                        # nanoseconds UTC of the agent's start
    pid: int
    config: str                       # file
    redirect: bool                    # [nftables] redirect
    listeners: tuple[str, ...]        # "127.0.0.1:15432"
    enforcer: ServiceView
    recorder: ServiceView
    lag: int                          # bytes of journal that the recorder has not taken
    targets: tuple[TargetView, ...]
    egress: tuple[TargetView, ...]
    workloads: tuple[WorkloadView, ...]
    statistics: dict[str, int]        # the enforcer's
    hints: tuple[str, ...]            # what somebody should look at
    dns: str = ""                     # where Weir's resolver answers crews
    modes: dict[str, str] = {}        # egress mode of the workloads where it is not "enforce"
    upstream: str = ""                # the DNS server that it asks, "" where there is none
    identity: ServiceView | None = None       # None: there is no [[provider]]
    notify: ServiceView | None = None         # None: there is neither [slack] nor a [[webhook]]
    web: ServiceView | None = None    # None: there is no page
    page: str = ""                    # its address
    metrics: ServiceView | None = None        # None: [metrics] has no listen
    lsm: str = ""                     # BPF LSM: "on: ..." or "off: why"
    locks: tuple[Lock, ...] = ()      # the oldest first
    configuration: ConfigurationView | None = None


class LedgerView(Message, frozen=True):
    """Connects that the kernel saw, since the recorder's start."""

    known: bool = False               # False: the recorder has not said yet
    counts: dict[str, int] = {}       # how they ended
    waiting: int = 0                  # that nobody accounts for yet
    open: tuple[Connect, ...] = ()    # of these the oldest, where they are older than some seconds
    alarms: tuple[Alarm, ...] = ()    # that nobody has acknowledged, the newest
    answers: int = 0                  # how often the recorder has said since its start


class OpenSocket(msgspec.Struct, frozen=True):
    """That a unit had when it was adopted."""

    pid: int
    exe: str
    family: str                       # "INET stream"
    peer: str                         # "ADDRESS PORT", empty where it is not connected
    done: str


class Adopted(Message, frozen=True):
    error: str = ""
    sockets: tuple[OpenSocket, ...] = ()      # at most SOCKETS


class Approvals(Message, frozen=True):
    holds: tuple[HoldView, ...]


class OpenSessions(Message, frozen=True):
    sessions: tuple[SessionView, ...]


Request = (Run | AskStatus | ListApprovals | Decide | BreakGlass | Revoke | Elevate | AskSessions | Stop | Release
           | Reload | AskKeys | RotateKey | RotateAuthority
           | AskLedger | Acknowledge | Adopt | Abandon | KillSession | PutLock | LiftLock
           | TestNotify | Login | FinishLogin | AwaitLogin | Logout | AskWhoAmI)
Reply = (LoginBegun | LoginState | LoggedOut | WhoAmI | Failed | Status | Approvals | Requested | OpenSessions
         | LedgerView | Keys | KeyRotated | AuthorityRotated | NotifyTested | Killed | LockDone | Adopted | Answered
         | Refused)
ToRunner = Started | Exited | Failed
FromRunner = Signal | Resize

_encoder = msgspec.msgpack.Encoder()
_run = msgspec.msgpack.Decoder(Run)
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)
_from_runner: msgspec.msgpack.Decoder[FromRunner] = msgspec.msgpack.Decoder(FromRunner)


def render_frame(message: Message) -> bytes:
    """One frame, length included."""
    return frames.render_frame(_encoder.encode(message), LIMIT)


def parse_length(head: bytes, limit: int = LIMIT) -> int:
    """Length of the body that follows these 4 bytes; ValueError where it is over the limit."""
    return frames.parse_length(head, limit)


def parse_run(body: bytes) -> Run:
    return _run.decode(body)


def parse_to_runner(body: bytes) -> ToRunner:
    return _to_runner.decode(body)


def parse_from_runner(body: bytes) -> FromRunner:
    return _from_runner.decode(body)


def parse_request(body: bytes) -> Request:
    return _request.decode(body)


def parse_reply(body: bytes) -> Reply:
    return _reply.decode(body)
