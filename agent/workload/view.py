"""What a workload sees of the files: an allow-list, rendered as bubblewrap's arguments.  Pure.

The system is read-only, the workload's own directories are as they are, `/tmp`, `/run` and `/var/tmp` are its own and
empty, and of Weir nothing is there.  Over files that clients read for trust, others are bound.

A view is rendered after the launcher has become the workload's user: `Files` answers with that user's rights, so
nobody can make root read a file or walk a link for him.

Theory of operation.  `_Tree` keeps the mounts in the order in which they are made, each with its target and the host
path that shows there (None: nothing of the host).  A later one covers an earlier one: so first the directories, then
those that are rebuilt to make room for a file, then the files, and what is Weir's is covered last.  Every target is
first resolved as a process *inside* would resolve it, because bubblewrap cannot mount over a link: a link is followed
as long as it is visible, and where it leads out of what is visible, that is the place for the mount.

Where something of the workload's own lies is, below a directory that it may write, its crew's to choose: a name that
leads through there and out again is refused, and so is whatever leads to a place of the host's that nobody is shown.
What was looked at is what is bound: such a source is `Pinned`, opened by its name without links and bound by that
descriptor (agent/workload/sandbox.py), for a crew of another start may change it meanwhile.

A kubeconfig is shown as what was read of it here, rendered anew (agent/kubernetes/kubeconfig.py): what is not read is
not shown.
"""
from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from agent.kubernetes.kubeconfig import cover, parse_clusters
from agent.ssh.known_hosts import merge

CONTENT_LIMIT: Final = 1 << 20        # bytes of a trust file that is read to be added to
NAMES_LIMIT: Final = 1000             # entries of a directory that is rebuilt on a tmpfs
LINK_LIMIT: Final = 40                # as the kernel, path_resolution(7)

# Merged /usr or not: what of these is a link on the host is the same link inside.
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc")
_EMPTY: Final = ("/tmp", "/run", "/var/tmp")  # noqa: S108
SOCKETS: Final = "/run/sockets"       # in the view
# Nothing there, and nothing that holds one of them, is shown, whatever leads there: sockets of the host's services and
# of other users are in these, and processes.
_NEVER: Final = (*_EMPTY, "/proc", "/sys", "/dev")
_WHERE_NAMED: Final = ("/tmp", "/var/tmp")       # noqa: S108  but for what the configuration itself names in them
NO_VIEW: Final = 125
_INCLUDED: Final = "/etc/ssh/ssh_config.d"       # by /etc/ssh/ssh_config of distributions
# OpenBLAS, hwloc and JVMs count processors here; nothing else of /sys is shown.
_PROCESSORS: Final = ("/sys/devices/system/cpu", "/sys/devices/system/node")


class Bind(msgspec.Struct, frozen=True):
    """`source` shows at `target`, read-only."""

    source: str                       # Weir's own file, readable by everybody
    target: str                       # absolute, as a client names it; links are followed
    append: bool = False              # show the target's own content, then the source's
    absent: str = "skip"              # where nothing is at the target: "skip", or "make": without a trace on the host
    known_hosts: bool = False         # lines of SSH hosts: of the target's own those for the same hosts are left out
    kubeconfig: bool = False          # `source` says which clusters: the target's own is shown as their clients need it
    own: bool = False                 # show the target's own content where there is one, else the source's


class View(msgspec.Struct, frozen=True):
    """Absolute paths.  Directories that are not there are left out."""

    home: str
    writable: tuple[str, ...]
    readable: tuple[str, ...]
    hidden: tuple[str, ...]           # Weir's own, whatever the others say
    binds: tuple[Bind, ...]
    socket_directory: str = ""        # Weir's own Unix sockets, shown as SOCKETS
    sockets: tuple[tuple[str, str], ...] = ()       # path, and the name in that directory to which it leads


class Files(Protocol):
    """The host's files, with the rights of the workload's user.  Nothing here raises."""

    def kind(self, path: str) -> str:
        """file | directory | link | other, or empty: not there or not to be seen.  Follows no link at the end."""
        ...

    def link(self, path: str) -> str: ...

    def real(self, path: str) -> str: ...

    def names(self, path: str) -> tuple[str, ...] | None:
        """Entries of a directory; None where there are more than NAMES_LIMIT or it cannot be read."""
        ...

    def content(self, path: str) -> bytes | None:
        """None where it cannot be read, has more than CONTENT_LIMIT bytes, or a link is in its name."""
        ...

    def executable(self, path: str) -> bool: ...


@dataclass(frozen=True)
class Data:
    """An argument that is a descriptor from which bubblewrap reads this content."""

    content: bytes


@dataclass(frozen=True)
class Pinned:
    """A source: what lies at this path of the host, which has no link in it, when it is opened."""

    path: str


@dataclass(frozen=True)
class Command:
    path: str                         # absolute, as it is named inside


@dataclass(frozen=True)
class NoCommand:
    code: int                         # 126 or 127, as a shell's; NO_VIEW: there is none that may be shown
    text: str


@dataclass(frozen=True)
class Rendered:
    arguments: tuple[Argument, ...]
    command: Command | NoCommand
    cwd: str                          # where it starts; not the wanted one where that is not in the view


Argument = str | Data | Pinned


def shows(view: View, path: str) -> bool:
    """Whether a path lies in what the view takes from the host, by name alone."""
    return any(_within(path, top) for top in (*_SYSTEM, *view.writable, *view.readable))


def render_view(view: View, files: Files, argv0: str, search: str, cwd: str) -> Rendered:
    """`search` is PATH; `argv0` is looked for as execvp(3) would, inside the view."""
    tree = _Tree(files)
    _base(tree)
    if refusal := _directories(tree, view):
        return Rendered((), NoCommand(NO_VIEW, refusal), "/")
    binds = [bind for bind in view.binds if not _hidden(tree, view, bind.target)]
    _make_room(tree, binds)
    for bind in binds:
        _bind(tree, bind)
    if any(bind.known_hosts for bind in binds):
        _included(tree)
    _sockets(tree, view)
    _hide(tree, view)
    for directory in tree.closed:
        tree.arguments += ["--remount-ro", directory]
    start = cwd if tree.kind(cwd) == "directory" else view.home if tree.kind(view.home) else "/"
    tree.arguments += ["--remount-ro", "/", "--chdir", start]
    return Rendered(tuple(tree.arguments), _find(tree, argv0, search, start), start)


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


@dataclass(frozen=True)
class _Mount:
    target: str
    source: str | None
    writable: bool = False
    pinned: bool = False


class _Tree:
    def __init__(self, files: Files) -> None:
        self.files = files
        self.mounts: list[_Mount] = []
        self.arguments: list[Argument] = []
        self.closed: list[str] = []   # rebuilt directories that become read-only when everything is in them
        self.writable: dict[str, str] = {}      # directories that the workload may write -> where they really are

    def mount(self, option: str, source: str, target: str, pinned: bool = False) -> None:
        self.arguments += [option, Pinned(source) if pinned else source, target]
        self.mounts.append(_Mount(target, source, option == "--bind", pinned))

    def symlink(self, to: str, target: str, source: str) -> None:
        self.arguments += ["--symlink", to, target]
        self.mounts.append(_Mount(target, source))

    def empty(self, target: str, option: str = "--tmpfs") -> None:
        self.arguments += [option, target]
        self.mounts.append(_Mount(target, None))

    def covering(self, path: str) -> _Mount | None:
        return next((mount for mount in reversed(self.mounts) if _within(path, mount.target)), None)

    def host(self, path: str) -> str | None:
        """The host's name of what shows at this path, links not followed; None where nothing of the host does."""
        mount = self.covering(path)
        if mount is None or mount.source is None:
            return None
        return posixpath.normpath(mount.source + path[len(mount.target):])

    def resolve(self, path: str) -> str:
        """Where a process inside arrives; the rest of the name where it leaves what is visible."""
        return _follow(path, lambda here: None if (host := self.host(here)) is None else _link(self.files, host))[0]

    def kind(self, path: str) -> str:
        """Of what a process inside arrives at; directories that only bubblewrap makes count as empty ones."""
        arrived = self.resolve(path)
        host = self.host(arrived)
        if host is not None:
            return self.files.kind(host)
        return "directory" if any(_within(mount.target, arrived) for mount in self.mounts) else ""


def _link(files: Files, path: str) -> str | None:
    return files.link(path) if files.kind(path) == "link" else None


def _follow(path: str, link: Callable[[str], str | None]) -> tuple[str, set[str]]:
    """Where it arrives, and the directories in which a name was looked up on the way.  `link`: the text of one, None
    where there is none."""
    done, left, followed, looked = "/", posixpath.normpath(path).split("/")[1:], 0, set()
    while left:
        name = left.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            done = posixpath.dirname(done)
            continue
        looked.add(done)
        here = posixpath.join(done, name)
        to = link(here) if followed < LINK_LIMIT else None
        if to is None:
            done = here
            continue
        followed += 1
        done = "/" if to.startswith("/") else done
        left = to.split("/") + left
    return done, looked


def _base(tree: _Tree) -> None:
    for path in _SYSTEM:
        kind = tree.files.kind(path)
        if kind == "link":
            tree.symlink(tree.files.link(path), path, path)
        elif kind == "directory":
            tree.mount("--ro-bind", path, path)
    tree.empty("/proc", "--proc")
    # A workload of uid 0 does not exist, but a sysctl may belong to somebody else.
    tree.mount("--ro-bind", "/proc/sys", "/proc/sys")
    tree.empty("/dev", "--dev")
    for path in _EMPTY:
        tree.arguments += ["--perms", "0755" if path == "/run" else "1777"]
        tree.empty(path)
    tree.arguments += ["--symlink", "../run", "/var/run"]
    for path in _PROCESSORS:
        if tree.files.kind(path) == "directory":
            tree.mount("--ro-bind", path, path)


def _directories(tree: _Tree, view: View) -> str:
    """Parents before children, so that a writable directory inside a read-only one stays writable.  Why one may not be
    shown, or empty."""
    wanted = {path: "--ro-bind" for path in view.readable} | {path: "--bind" for path in view.writable}
    if view.home != "/" and not shows(view, view.home) and tree.files.kind(tree.files.real(view.home)) == "directory":
        tree.empty(view.home)
    found = {path: _follow(path, lambda here: _link(tree.files, here)) for path in wanted}
    found = {path: one for path, one in found.items() if tree.files.kind(one[0]) not in ("", "link")}
    tree.writable = {path: found[path][0] for path in view.writable if path in found}
    for path in sorted(found, key=lambda path: (path.count("/"), path)):
        real, looked = found[path]
        # getcwd(2) gives the real name, configurations the other one.
        for place in dict.fromkeys((real, tree.resolve(path))):
            said = f"{path} " + ("" if place == path else f"leads to {place}, which ")
            if top := _way_out(tree, place, looked):
                return said + (f"lies outside of {top}: the workload may write there, and so choose what it is shown; "
                               "name the place itself")
            if why := _never(tree, view, path, place):
                return said + why
            tree.mount(wanted[path], real, place, pinned=True)
    return ""


def _way_out(tree: _Tree, place: str, looked: set[str]) -> str:
    """A directory that the workload may write and through which a name led to this place outside of it: it has chosen
    the place."""
    return next((top for top, real in tree.writable.items() if any(_within(one, real) for one in looked)
                 and not _within(place, real) and not _within(place, top)), "")


def _never(tree: _Tree, view: View, path: str, place: str) -> str:
    if why := closed(path, place, lambda names: tuple(_tops(tree.files, names))):
        return why
    if any(_within(place, tree.files.real(hidden)) for hidden in view.hidden):
        return "is Weir's own, or a registered target's socket"
    return ""


def closed(path: str, place: str, tops: Callable[[tuple[str, ...]], tuple[str, ...]] = tuple) -> str:
    """Why no workload is shown `place`, to which `path` of its configuration leads, or empty.  `tops`: directories by
    all of their names."""
    for top in tops(_NEVER):
        if _within(top, place):
            return f"holds {top}, and what is there no workload is shown"
        if _within(place, top) and not any(_within(path, one) and _within(place, one) for one in tops(_WHERE_NAMED)):
            return f"lies in {top}, and what is there no workload is shown"
    return ""


def _tops(files: Files, names: tuple[str, ...]) -> Iterator[str]:
    yield from dict.fromkeys((*names, *map(files.real, names)))


def _hidden(tree: _Tree, view: View, path: str) -> bool:
    return any(_within(tree.files.real(path), tree.files.real(hidden)) for hidden in view.hidden)


def _hide(tree: _Tree, view: View) -> None:
    for hidden in view.hidden:
        real = tree.files.real(hidden)
        for mount in list(tree.mounts):
            if mount.source is not None and _within(real, mount.source):
                _cover(tree, posixpath.normpath(mount.target + real[len(mount.source):]), real)


def _cover(tree: _Tree, target: str, real: str) -> None:
    if tree.host(target) != real or not (kind := tree.files.kind(real)):
        return
    if kind == "directory":
        tree.empty(target)
        tree.arguments += ["--remount-ro", target]
    else:
        tree.arguments += ["--ro-bind", "/dev/null", target]
        tree.mounts.append(_Mount(target, None))


def _bind(tree: _Tree, bind: Bind) -> None:
    target = tree.resolve(bind.target)
    shown = tree.host(target)
    real, looked = (shown, set()) if shown else _follow(bind.target, lambda here: _link(tree.files, here))
    if _way_out(tree, real, looked):
        return                        # to what it would then be shown: the user's own files elsewhere
    kind = tree.files.kind(real)
    if kind not in ("", "file") or (not kind and bind.absent == "skip"):
        return
    if not kind and shown is not None:
        return                        # no room could be made
    if bind.kubeconfig:
        _bind_kubeconfig(tree, bind, real, target)
    elif bind.own and kind and (content := tree.files.content(real)) is not None:
        _bind_data(tree, "--ro-bind-data", content, target)
    elif not bind.append:
        tree.mount("--ro-bind", bind.source, target)
    elif (content := _appended(tree.files, real if kind else "", bind)) is not None:
        _bind_data(tree, "--ro-bind-data", content, target)


def _bind_data(tree: _Tree, option: str, content: bytes, target: str) -> None:
    tree.arguments += [option, Data(content), target]
    tree.mounts.append(_Mount(target, None))


def _bind_kubeconfig(tree: _Tree, bind: Bind, real: str, target: str) -> None:
    """Clients write into theirs, such as the context that counts: that stays in the view."""
    known = tree.files.content(tree.files.real(bind.source))
    shown = cover(tree.files.content(real), parse_clusters(known)) if known is not None else b""
    if shown is not None:
        tree.arguments += ["--perms", "0600"]
        _bind_data(tree, "--bind-data", shown, target)


def _included(tree: _Tree) -> None:
    """OpenSSH ends at a file of these that is neither root's nor its user's (readconf.c), and in the view's user
    namespace nothing is root's: there they are copies, and the user's."""
    host = tree.host(_INCLUDED)
    for name in (tree.files.names(host) if host else None) or ():
        target = tree.resolve(posixpath.join(_INCLUDED, name))
        place = tree.host(target)
        if place and tree.files.kind(place) == "file" and (content := tree.files.content(place)) is not None:
            _bind_data(tree, "--ro-bind-data", content, target)


def _sockets(tree: _Tree, view: View) -> None:
    """The directory is bound, not the sockets: one that is made anew on the host would lose its bind."""
    if not view.sockets:
        return
    tree.mount("--ro-bind", view.socket_directory, SOCKETS)
    for path, name in view.sockets:
        if tree.host(path) is None:   # else it is the workload's own place: nothing is made on the host
            tree.arguments += ["--symlink", posixpath.join(SOCKETS, name), path]
            tree.mounts.append(_Mount(path, None))


def _appended(files: Files, own: str, bind: Bind) -> bytes | None:
    """None where the file is not PEM or cannot be read: it is left as it is, and its client says what it thinks."""
    before, after = files.content(own) if own else b"", files.content(files.real(bind.source))
    if before is None or after is None:
        return None
    if bind.known_hosts:
        return merge(before, after)
    if before and b"-----BEGIN " not in before:
        return None
    return before + (b"" if not before or before.endswith(b"\n") else b"\n") + after


def _make_room(tree: _Tree, binds: list[Bind]) -> None:
    """Before any file is bound, for a rebuilt directory covers what was in it; parents first, for the same reason."""
    for bind in binds:
        if bind.known_hosts:
            _make_directory(tree, posixpath.dirname(tree.resolve(bind.target)))
    targets = {tree.resolve(bind.target) for bind in binds if bind.absent == "make"}
    absent = (target for target in targets if (host := tree.host(target)) and not tree.files.kind(host))
    for directory in sorted({posixpath.dirname(target) for target in absent}, key=lambda path: (path.count("/"), path)):
        _rebuild(tree, directory)


def _make_directory(tree: _Tree, directory: str) -> None:
    """~/.ssh where there is none, in a home that the workload may write: there bubblewrap makes the directory, empty,
    which to a client is as none.  What is written into it stays in the view."""
    above, covering = tree.host(posixpath.dirname(directory)), tree.covering(directory)
    if above is None or covering is None or not covering.writable:
        return
    if tree.kind(directory) == "" and tree.files.kind(above) == "directory":
        tree.arguments += ["--perms", "0700"]
        tree.empty(directory)


def _rebuild(tree: _Tree, directory: str) -> None:
    """A tmpfs over the directory with what is in it bound back: a mount over a file that is not there would leave an
    empty one on the host, which for a client outside Weir means something."""
    host, covering = tree.host(directory), tree.covering(directory)
    inner = [mount for mount in tree.mounts if mount.target != directory and _within(mount.target, directory)]
    if host is None or covering is None or tree.files.kind(host) != "directory":
        return
    if (names := tree.files.names(host)) is None or any(mount.source is None for mount in inner):
        return
    tree.empty(directory)
    if not covering.writable:
        tree.closed.append(directory)
    for name in names:
        inside, outside = posixpath.join(directory, name), posixpath.join(host, name)
        if tree.files.kind(outside) == "link":
            tree.symlink(tree.files.link(outside), inside, outside)
        else:
            tree.mount("--bind" if covering.writable else "--ro-bind", outside, inside, covering.pinned)
    for mount in inner:
        if mount.source is not None:
            tree.mount("--bind" if mount.writable else "--ro-bind", mount.source, mount.target, mount.pinned)


def _find(tree: _Tree, name: str, search: str, cwd: str) -> Command | NoCommand:
    places = [posixpath.join(cwd, name)] if "/" in name else [
        posixpath.join(cwd, folder or ".", name) for folder in search.split(":")]
    unseen = denied = ""
    for place in map(posixpath.normpath, places):
        host = tree.host(tree.resolve(place))
        if host is None or not (kind := tree.files.kind(host)):
            unseen = unseen or (place if tree.files.executable(place) else "")
        elif kind == "file" and tree.files.executable(host):
            return Command(place)
        else:
            denied = denied or place
    if denied:
        return NoCommand(126, f"{denied}: permission denied")
    if unseen:
        return NoCommand(127, f"{unseen}: not in this workload's view of the files; "
                              f"name its directory in `read_only` of the [[workload]]")
    return NoCommand(127, f"{name}: command not found")
