"""What a workload sees, from a host's files that are a table."""
from __future__ import annotations

import posixpath
from base64 import b64encode

import pytest

from agent.kubernetes.clusters import ClusterTrust, service_binds
from agent.kubernetes.kubeconfig import Cluster, render_clusters
from agent.workload.view import Bind, Command, Data, NoCommand, Pinned, Rendered, View, render_view, shows

HOME = "/home/ann"
WEIR = ("/etc/weir", "/run/weir", "/var/lib/weir")
ROOTS = b"-----BEGIN CERTIFICATE-----\nown\n-----END CERTIFICATE-----\n"
ADDED = b"-----BEGIN CERTIFICATE-----\nweir\n-----END CERTIFICATE-----\n"
AUTHORITIES = "/run/weir/trust/weir.pem"


class Table:
    """agent.workload.view.Files: a path gives a file's content, None for a directory, or "-> to" for a link.

    `closed`: not to be read by the workload's user."""

    def __init__(self, entries: dict[str, bytes | str | None], programs: tuple[str, ...] = (),
                 closed: tuple[str, ...] = ()) -> None:
        self.entries: dict[str, bytes | str | None] = {"/": None}
        for path, entry in entries.items():
            parent = posixpath.dirname(path)
            while parent not in self.entries and parent not in entries:
                self.entries[parent] = None
                parent = posixpath.dirname(parent)
            self.entries[path] = entry
        self.programs, self.closed = programs, closed

    def kind(self, path: str) -> str:
        path = self.parent(path)
        if path not in self.entries:
            return ""
        entry = self.entries[path]
        return "directory" if entry is None else "link" if isinstance(entry, str) else "file"

    def parent(self, path: str) -> str:
        return path if path == "/" else posixpath.join(self.real(posixpath.dirname(path)), posixpath.basename(path))

    def link(self, path: str) -> str:
        entry = self.entries.get(self.parent(path))
        return entry.removeprefix("-> ") if isinstance(entry, str) else ""

    def real(self, path: str) -> str:
        done, left = "/", [part for part in path.split("/") if part]
        for _ in range(100):
            if not left:
                return done
            here = posixpath.normpath(posixpath.join(done, left.pop(0)))
            entry = self.entries.get(here)
            if isinstance(entry, str):
                to = posixpath.join(done, entry.removeprefix("-> "))
                done, left = "/", [part for part in posixpath.normpath(to).split("/") if part] + left
            else:
                done = here
        return done

    def names(self, path: str) -> tuple[str, ...] | None:
        if path in self.closed:
            return None
        return tuple(sorted(posixpath.basename(entry) for entry in self.entries
                            if entry != "/" and posixpath.dirname(entry) == path))

    def content(self, path: str) -> bytes | None:
        entry = self.entries.get(self.real(path))
        return entry if isinstance(entry, bytes) and path not in self.closed else None

    def executable(self, path: str) -> bool:
        return self.real(path) in self.programs


SYSTEM: dict[str, bytes | str | None] = {
    "/usr/bin/true": b"", "/usr/bin/psql": b"", "/usr/share/data": b"", "/bin": "-> usr/bin", "/lib": "-> usr/lib",
    "/etc/hosts": b"127.0.0.1 localhost\n", "/etc/resolv.conf": b"nameserver 192.0.2.1\n",
    "/etc/ssl/certs/ca-certificates.crt": ROOTS, "/etc/weir/weir.toml": b"secret",
    "/run/weir/control.sock": b"", AUTHORITIES: ADDED, "/run/weir/trust/roots.pem": ROOTS + ADDED,
    "/var/lib/weir/ca": None, "/home/ann/work": None, "/home/ann/notes": b"", "/home/bob": None, "/opt/venv": None,
    "/srv/data": None, "/tmp": None, "/proc": None, "/sys/devices/system/cpu": None,
}
PROGRAMS = ("/usr/bin/true", "/usr/bin/psql", "/srv/data/tool")


def view(*, writable: tuple[str, ...] = (HOME,), readable: tuple[str, ...] = (), hidden: tuple[str, ...] = WEIR,
         binds: tuple[Bind, ...] = (), home: str = HOME) -> View:
    return View(home=home, writable=writable, readable=readable, hidden=hidden, binds=binds)


def rendered(made: View, more: dict[str, bytes | str | None] | None = None, argv0: str = "true", cwd: str = HOME,
             closed: tuple[str, ...] = (), search: str = "/usr/bin:/bin") -> Rendered:
    return render_view(made, Table(SYSTEM | (more or {}), PROGRAMS, closed), argv0, search, cwd)


def mounts(found: Rendered) -> list[tuple[str | Data, ...]]:
    """bubblewrap's options, each with its arguments."""
    width = {"--proc": 1, "--dev": 1, "--tmpfs": 1, "--perms": 1, "--remount-ro": 1, "--chdir": 1}
    words, options = [one.path if isinstance(one, Pinned) else one for one in found.arguments], []
    while words:
        count = 1 + width.get(str(words[0]), 2)
        options.append(tuple(words[:count]))
        words = words[count:]
    return options


def at(found: Rendered, target: str) -> list[tuple[str | Data, ...]]:
    return [option for option in mounts(found)
            if option[-1] == target and option[0] not in ("--remount-ro", "--chdir")]


# the system


def test_the_system_is_read_only_and_nothing_else_of_the_host_is_there() -> None:
    found = mounts(rendered(view()))
    assert {option for option in found if option[0] == "--bind"} == {("--bind", HOME, HOME)}
    shown = {option[1] for option in found if option[0] == "--ro-bind"}
    assert shown == {"/usr", "/etc", "/proc/sys", "/sys/devices/system/cpu"}
    assert ("--symlink", "usr/bin", "/bin") in found
    assert found.index(("--proc", "/proc")) < found.index(("--ro-bind", "/proc/sys", "/proc/sys"))
    assert {option[1] for option in found if option[0] == "--tmpfs"} >= {"/tmp", "/run", "/var/tmp"}
    # The root itself is closed when everything is in it.
    assert found[-2:] == [("--remount-ro", "/"), ("--chdir", HOME)]


def test_shows_is_by_name() -> None:
    made = view(writable=("/srv/data",), readable=("/opt/venv",))
    assert all(shows(made, path) for path in ("/usr", "/etc/x", "/srv/data", "/srv/data/x", "/opt/venv/bin"))
    assert not any(shows(made, path) for path in ("/", "/srv", "/srv/data2", "/home/ann", "/usrlocal", "/opt/venv.old"))


def test_a_home_that_is_not_a_directory_of_the_workload_is_empty() -> None:
    found = rendered(view(writable=("/srv/data",)), cwd="/srv/data")
    assert at(found, HOME) == [("--tmpfs", HOME)]
    assert not [option for option in mounts(found) if option[0] == "--bind" and HOME in option]


def test_parents_come_before_children() -> None:
    found = mounts(rendered(view(writable=(HOME + "/work",), readable=(HOME,))))
    assert found.index(("--ro-bind", HOME, HOME)) < found.index(("--bind", HOME + "/work", HOME + "/work"))


def test_what_is_named_for_reading_and_writing_is_written() -> None:
    found = rendered(view(writable=("/srv/data",), readable=("/srv/data",)))
    assert at(found, "/srv/data") == [("--bind", "/srv/data", "/srv/data")]


def test_directories_that_are_not_there_are_left_out() -> None:
    found = rendered(view(writable=("/nowhere", HOME), readable=("/opt/none",)))
    assert not at(found, "/nowhere")
    assert not at(found, "/opt/none")


def test_the_root_is_never_bound() -> None:
    found = rendered(view(writable=("/",), readable=("/",)))
    assert not [option for option in mounts(found) if option[1] == "/" and option[0] in ("--bind", "--ro-bind")]


def test_a_directory_behind_a_link_is_there_by_both_names() -> None:
    found = rendered(view(writable=("/work",)), {"/work": "-> srv/data"})
    assert at(found, "/srv/data") == [("--bind", "/srv/data", "/srv/data")]
    assert at(found, "/work") == [("--bind", "/srv/data", "/work")]


# what a crew may not choose


def refused(made: View, more: dict[str, bytes | str | None]) -> str:
    found = rendered(made, more)
    assert isinstance(found.command, NoCommand)
    assert (found.command.code, found.arguments) == (125, ())
    return found.command.text


LIB = HOME + "/tools/lib"


@pytest.mark.parametrize("to", ["/run", "../../../run", "/proc", "/tmp", "/home/bob", "/srv/data", "/home",
                                "/var/lib/weir", "../../../srv/data"])
@pytest.mark.parametrize("link", [LIB, HOME + "/tools"])
def test_a_name_through_its_own_directory_leads_nowhere_else(link: str, to: str) -> None:
    """directories = ["~"], read_only = ["~/tools/lib"]: the crew makes links there, and waits for the next start."""
    more: dict[str, bytes | str | None] = {link: f"-> {to}"}
    more |= {f"{place}/lib": None for place in ("/proc", "/srv/data", "/run", "/home/bob", "/tmp", "/home",
                                                "/var/lib/weir")}
    text = refused(view(readable=(LIB,)), more)
    assert text.startswith(f"{LIB} leads to ")
    assert f"outside of {HOME}" in text


def test_also_behind_a_link_of_the_operators() -> None:
    """By its name it lies elsewhere."""
    more: dict[str, bytes | str | None] = {"/opt/tools": f"-> ..{HOME}/work", HOME + "/work/lib": "-> /srv/data"}
    assert "leads to /srv/data" in refused(view(readable=("/opt/tools/lib",)), more)
    more = {"/opt/lib": f"-> {HOME}/lib", HOME + "/lib": "-> /srv/data"}
    assert "leads to /srv/data" in refused(view(readable=("/opt/lib",)), more)


def test_a_link_within_its_own_directory_is_followed() -> None:
    found = rendered(view(readable=(LIB,)), {LIB: "-> ../work"})
    assert at(found, HOME + "/work") == [("--ro-bind", HOME + "/work", HOME + "/work")]
    found = rendered(view(writable=("/work",), readable=("/work/lib",)), {
        "/work": "-> srv/data", "/srv/data/lib": "-> other", "/srv/data/other": None})
    assert at(found, "/srv/data/other") == [("--ro-bind", "/srv/data/other", "/srv/data/other")]


@pytest.mark.parametrize("path", ["/", "/run", "/run/postgresql", "/tmp", "/var/tmp", "/var", "/proc", "/proc/1",
                                  "/sys", "/sys/fs", "/dev", "/dev/shm", "/link", "/link/deeper"])
@pytest.mark.parametrize("writable", [True, False])
def test_the_hosts_own_places_are_shown_to_nobody(path: str, writable: bool) -> None:
    made = view(writable=(HOME, path) if writable else (HOME,), readable=() if writable else (path,))
    text = refused(made, {path: None, "/run/postgresql": None, "/var/tmp": None, "/dev": None, "/sys/fs": None,
                          "/link": "-> run", "/run/deeper": None})
    assert "no workload is shown" in text
    assert text.startswith(f"{path} ")


def test_what_the_configuration_names_below_tmp_is_shown() -> None:
    found = rendered(view(readable=("/tmp/shared",)), {"/tmp/shared": None})
    assert at(found, "/tmp/shared") == [("--ro-bind", "/tmp/shared", "/tmp/shared")]
    assert "lies in /run" in refused(view(readable=("/tmp/shared",)), {"/tmp/shared": "-> ../run/weir/trust"})


def test_what_a_crew_may_move_is_pinned() -> None:
    """And in a directory that is rebuilt each of what is in it."""
    directory = posixpath.dirname(ROOT_CRT)
    found = rendered(view(readable=("/opt/venv", HOME + "/work"), binds=(Bind(AUTHORITIES, ROOT_CRT, True, "make"),)),
                     {directory + "/postgresql.key": b""})
    assert {one.path for one in found.arguments if isinstance(one, Pinned)} == {
        HOME, HOME + "/work", "/opt/venv", directory + "/postgresql.key"}


def test_a_root_file_does_not_lead_to_what_is_not_shown() -> None:
    """The user's private key is PEM as well."""
    own, key = "/srv/data/own.pem", HOME + "/.ssh/id"
    made = view(writable=("/srv/data",), binds=(Bind(AUTHORITIES, own, True),))
    found = rendered(made, {own: f"-> {key}", key: ROOTS})
    assert not [option for option in mounts(found) if isinstance(option[1], Data)]


# nothing of Weir's


@pytest.mark.parametrize("path", [*WEIR, "/run/weir/trust", "/var/lib/weir/ca"])
def test_weirs_directories_are_not_bound_even_where_named(path: str) -> None:
    found = rendered(view(writable=(HOME, path), readable=(path,)))
    assert not [option for option in mounts(found) if option[0] in ("--bind", "--ro-bind") and option[1] == path]


def test_a_link_to_weirs_directory_is_not_bound() -> None:
    found = rendered(view(writable=(HOME, "/srv/x")), {"/srv/x": "-> /var/lib/weir"})
    assert not [option for option in mounts(found) if option[1] in ("/var/lib/weir", "/srv/x")]


def test_weirs_directories_are_covered_where_their_parent_is_shown() -> None:
    found = rendered(view(readable=("/var/lib",)))
    options = mounts(found)
    for path in ("/etc/weir", "/var/lib/weir"):
        assert at(found, path) == [("--tmpfs", path)]
        assert options.index(("--tmpfs", path)) < options.index(("--remount-ro", path))
    assert not at(found, "/run/weir")         # /run is a new one


def test_covered_at_every_place_where_it_would_show() -> None:
    found = rendered(view(readable=("/lib-of-var",)), {"/lib-of-var": "-> /var/lib"})
    assert at(found, "/var/lib/weir") == [("--tmpfs", "/var/lib/weir")]
    assert at(found, "/lib-of-var/weir") == [("--tmpfs", "/lib-of-var/weir")]


def test_a_hidden_file_is_covered_as_a_file() -> None:
    found = rendered(view(hidden=("/etc/weir.toml",)), {"/etc/weir.toml": b"secret"})
    assert at(found, "/etc/weir.toml") == [("--ro-bind", "/dev/null", "/etc/weir.toml")]


def test_a_hidden_directory_reached_by_a_link_is_covered() -> None:
    found = rendered(view(readable=("/srv",), hidden=("/var/lib/weir",)),
                     {"/var/lib/weir": "-> /srv/weir", "/srv/weir": None})
    assert at(found, "/srv/weir") == [("--tmpfs", "/srv/weir")]


# trust


def bound(target: str, *, append: bool = True, absent: str = "skip") -> View:
    return view(binds=(Bind(AUTHORITIES, target, append, absent),))


def test_the_system_bundle_is_replaced() -> None:
    made = view(binds=(Bind("/run/weir/trust/roots.pem", "/etc/ssl/certs/ca-certificates.crt"),))
    assert at(rendered(made), "/etc/ssl/certs/ca-certificates.crt") == [
        ("--ro-bind", "/run/weir/trust/roots.pem", "/etc/ssl/certs/ca-certificates.crt")]


@pytest.mark.parametrize("own", [ROOTS, ROOTS.rstrip(b"\n"), b""])
def test_a_clients_own_root_file_keeps_its_content(own: bytes) -> None:
    """sslmode=verify-full sslrootcert=FILE: the client's own authority stays, Weir's comes after it."""
    [option] = at(rendered(bound(HOME + "/root.pem"), {HOME + "/root.pem": own}), HOME + "/root.pem")
    assert option[0] == "--ro-bind-data"
    assert option[1] == Data((own + b"\n" if own and not own.endswith(b"\n") else own) + ADDED)


def test_what_is_no_pem_is_left_alone() -> None:
    assert not at(rendered(bound(HOME + "/root.der"), {HOME + "/root.der": b"\x30\x82\x01\x0a"}), HOME + "/root.der")


def test_what_cannot_be_read_is_left_alone() -> None:
    path = HOME + "/root.pem"
    assert not at(rendered(bound(path), {path: ROOTS}, closed=(path,)), path)


def test_a_directory_in_a_files_place_is_left_alone() -> None:
    assert not at(rendered(bound(HOME + "/work", absent="make")), HOME + "/work")


def test_a_link_is_followed_to_its_file() -> None:
    """bubblewrap cannot mount over a link."""
    more: dict[str, bytes | str | None] = {HOME + "/root.pem": "-> work/real.pem", HOME + "/work/real.pem": ROOTS}
    found = rendered(bound(HOME + "/root.pem"), more)
    assert not at(found, HOME + "/root.pem")
    assert at(found, HOME + "/work/real.pem") == [("--ro-bind-data", Data(ROOTS + ADDED), HOME + "/work/real.pem")]


def test_a_link_out_of_the_view_becomes_the_file_there() -> None:
    """/etc/resolv.conf is often a link into /run, which is empty inside."""
    made = view(binds=(Bind("/run/weir/resolv.conf", "/etc/resolv.conf", absent="make"),))
    found = rendered(made, {"/etc/resolv.conf": "-> ../run/systemd/resolve/stub-resolv.conf",
                            "/run/systemd/resolve/stub-resolv.conf": b"nameserver 127.0.0.53\n"})
    assert not at(found, "/etc/resolv.conf")
    assert at(found, "/run/systemd/resolve/stub-resolv.conf") == [
        ("--ro-bind", "/run/weir/resolv.conf", "/run/systemd/resolve/stub-resolv.conf")]


def test_links_in_a_circle_end() -> None:
    found = rendered(bound(HOME + "/a", absent="make"), {HOME + "/a": "-> b", HOME + "/b": "-> a"})
    assert not [option for option in mounts(found) if isinstance(option[1], Data)]


ROOT_CRT = HOME + "/.postgresql/root.crt"


def test_an_absent_file_is_skipped_unless_it_is_to_be_made() -> None:
    assert not at(rendered(bound(ROOT_CRT), {HOME + "/.postgresql": None}), ROOT_CRT)


def test_an_absent_root_crt_leaves_nothing_on_the_host() -> None:
    """A mount over a file that is not there would make an empty one in the real home, and with it libpq verifies
    against no authority at all, also outside Weir."""
    directory = posixpath.dirname(ROOT_CRT)
    found = rendered(bound(ROOT_CRT, absent="make"), {
        directory + "/postgresql.key": b"", directory + "/postgresql.crt": "-> ../work/mine.crt",
        directory + "/more": None})
    options = mounts(found)
    order = [
        ("--bind", HOME, HOME), ("--tmpfs", directory), ("--bind", directory + "/more", directory + "/more"),
        ("--symlink", "../work/mine.crt", directory + "/postgresql.crt"),
        ("--bind", directory + "/postgresql.key", directory + "/postgresql.key"),
        ("--ro-bind-data", Data(ADDED), ROOT_CRT)]
    places = [options.index(option) for option in order]
    assert places == sorted(places)


def test_without_its_directory_root_crt_is_not_made() -> None:
    found = rendered(bound(ROOT_CRT, absent="make"))
    assert not at(found, ROOT_CRT)
    assert not at(found, posixpath.dirname(ROOT_CRT))


def test_a_directory_that_cannot_be_listed_is_not_rebuilt() -> None:
    directory = posixpath.dirname(ROOT_CRT)
    found = rendered(bound(ROOT_CRT, absent="make"), {directory: None}, closed=(directory,))
    assert not at(found, ROOT_CRT)
    assert not at(found, directory)


def test_two_absent_files_of_one_directory() -> None:
    directory = HOME + "/.postgresql"
    made = view(binds=(Bind(AUTHORITIES, ROOT_CRT, True, "make"),
                       Bind(AUTHORITIES, directory + "/root2.crt", True, "make")))
    found = rendered(made, {directory + "/postgresql.key": b""})
    assert at(found, directory) == [("--tmpfs", directory)]
    assert [option[0] for path in (ROOT_CRT, directory + "/root2.crt") for option in at(found, path)] == [
        "--ro-bind-data"] * 2


def test_in_an_empty_place_of_the_view_nothing_needs_rebuilding() -> None:
    made = view(binds=(Bind("/run/weir/trust/roots.pem", "/run/trust/roots.pem", absent="make"),))
    found = rendered(made)
    assert at(found, "/run/trust/roots.pem") == [("--ro-bind", "/run/weir/trust/roots.pem", "/run/trust/roots.pem")]
    assert at(found, "/run") == [("--tmpfs", "/run")]


def test_rebuilding_shows_nothing_of_weirs() -> None:
    """Where /etc has no hosts file, /etc is rebuilt, and /etc/weir is in it."""
    made = view(binds=(Bind("/run/weir/hosts", "/etc/hosts", absent="make"),))
    table = {path: entry for path, entry in SYSTEM.items() if path != "/etc/hosts"}
    found = render_view(made, Table(table, PROGRAMS), "true", "/usr/bin", HOME)
    options = mounts(found)
    assert at(found, "/etc/hosts") == [("--ro-bind", "/run/weir/hosts", "/etc/hosts")]
    assert at(found, "/etc/weir")[-1] == ("--tmpfs", "/etc/weir")
    assert options.index(("--ro-bind", "/etc/ssl", "/etc/ssl")) > options.index(("--tmpfs", "/etc"))
    # What was read-only still is: the entries, and the directory that holds them.
    assert not [option for option in options if option[0] == "--bind" and str(option[2]).startswith("/etc")]
    assert options.index(("--remount-ro", "/etc")) > options.index(("--tmpfs", "/etc/weir"))


def test_rebuilding_in_a_read_only_home_makes_nothing_writable() -> None:
    directory = posixpath.dirname(ROOT_CRT)
    made = view(writable=(directory + "/mine",), readable=(HOME,), binds=(Bind(AUTHORITIES, ROOT_CRT, True, "make"),))
    found = rendered(made, {directory + "/postgresql.key": b"", directory + "/mine": None})
    key = directory + "/postgresql.key"
    assert at(found, key) == [("--ro-bind", key, key)]
    assert at(found, directory + "/mine")[-1] == ("--bind", directory + "/mine", directory + "/mine")
    assert ("--remount-ro", directory) in mounts(found)


def test_rebuilding_keeps_the_files_that_were_added_to() -> None:
    own = HOME + "/.postgresql/own.crt"
    made = view(binds=(Bind(AUTHORITIES, own, True), Bind(AUTHORITIES, ROOT_CRT, True, "make")))
    found = rendered(made, {own: ROOTS})
    assert at(found, own)[-1] == ("--ro-bind-data", Data(ROOTS + ADDED), own)
    assert at(found, ROOT_CRT) == [("--ro-bind-data", Data(ADDED), ROOT_CRT)]


@pytest.mark.parametrize("absent", ["skip", "make"])
@pytest.mark.parametrize("path", ["/etc/weir/own.pem", "/var/lib/weir/ca.pem", "/srv/link.pem"])
def test_a_caller_cannot_name_a_file_of_weirs(path: str, absent: str) -> None:
    """SSL_CERT_FILE=/etc/weir/..., or a link to it: content would show that the view hides."""
    found = rendered(bound(path, absent=absent), {
        "/etc/weir/own.pem": ROOTS, "/var/lib/weir/ca.pem": ROOTS, "/srv/link.pem": "-> ../etc/weir/own.pem"})
    assert not [option for option in mounts(found) if isinstance(option[1], Data)]


# the command and where it starts


@pytest.mark.parametrize(("argv0", "path"), [
    ("true", "/usr/bin/true"), ("/bin/true", "/bin/true"), ("../../usr/bin/true", "/usr/bin/true"),
])
def test_found(argv0: str, path: str) -> None:
    assert rendered(view(), argv0=argv0).command == Command(path)


@pytest.mark.parametrize(("argv0", "code", "word"), [
    ("nosuch", 127, "command not found"), ("/nosuch/x", 127, "command not found"), ("", 126, "permission denied"),
    ("/etc/hosts", 126, "permission denied"), ("/usr", 126, "permission denied"),
    ("/srv/data/tool", 127, "not in this workload's view"), ("../../srv/data/tool", 127, "read_only"),
])
def test_not_found(argv0: str, code: int, word: str) -> None:
    command = rendered(view(), {"/srv/data/tool": b""}, argv0=argv0).command
    assert isinstance(command, NoCommand)
    assert (command.code, word in command.text) == (code, True)


def test_path_is_searched_in_order_and_an_empty_part_is_here() -> None:
    more: dict[str, bytes | str | None] = {"/srv/data/tool": b""}
    made = view(writable=(HOME, "/srv/data"))
    found = rendered(made, more, argv0="tool", cwd="/srv/data", search="/usr/bin:")
    assert found.command == Command("/srv/data/tool")
    # Not to be executed in one place, found in the next: as execvp(3).
    found = rendered(made, more | {"/usr/bin/tool": b""}, argv0="tool", search="/usr/bin:/srv/data")
    assert found.command == Command("/srv/data/tool")


@pytest.mark.parametrize(("cwd", "start"), [
    (HOME + "/work", HOME + "/work"), ("/etc", "/etc"), ("/tmp", "/tmp"), ("/home/bob", HOME), ("/srv/data", HOME),
    (HOME + "/notes", HOME), (HOME + "/gone", HOME), ("/etc/weir", "/etc/weir"), ("/", "/"),
])
def test_where_it_starts(cwd: str, start: str) -> None:
    found = rendered(view(), cwd=cwd)
    assert found.cwd == start
    assert found.arguments[-2:] == ("--chdir", start)


def test_without_a_home_it_starts_at_the_root() -> None:
    found = rendered(view(home="/nohome", writable=("/srv/data",)), cwd="/nohome")
    assert found.cwd == "/"


# sockets


def sockets(*paths: str, writable: tuple[str, ...] = (HOME,), hidden: tuple[str, ...] = ()) -> View:
    return View(home=HOME, writable=writable, readable=(), hidden=(*WEIR, *hidden), binds=(),
                socket_directory="/run/weir/sockets", sockets=tuple((path, "orders") for path in paths))


def test_sockets_are_links_into_weirs_directory() -> None:
    found = rendered(sockets("/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5433"))
    assert at(found, "/run/sockets") == [("--ro-bind", "/run/weir/sockets", "/run/sockets")]
    for path in ("/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5433"):
        assert at(found, path) == [("--symlink", "/run/sockets/orders", path)]
    made = mounts(found)
    assert made.index(at(found, "/run/sockets")[0]) > made.index(("--tmpfs", "/run"))


def test_no_target_has_sockets() -> None:
    assert not at(rendered(view()), "/run/sockets")


def test_the_real_one_is_covered_wherever_it_shows() -> None:
    """A workload is refused that names its directory (workloads.py); a link may lead there all the same."""
    real = "/srv/pg/.s.PGSQL.5432"
    made = sockets("/run/postgresql/.s.PGSQL.5432", writable=("/data",), hidden=(real,))
    found = rendered(made, {real: b"", "/data": "-> /srv/pg"})
    assert at(found, real) == [("--ro-bind", "/dev/null", real)]
    assert at(found, "/data/.s.PGSQL.5432") == [("--ro-bind", "/dev/null", "/data/.s.PGSQL.5432")]


def test_nothing_is_made_in_a_directory_of_the_hosts() -> None:
    path = "/tmp/work/.s.PGSQL.5432"
    assert not at(rendered(sockets(path, writable=("/tmp/work",)), {"/tmp/work": None}), path)


# known_hosts

KNOWN_HOSTS = HOME + "/.ssh/known_hosts"
LINES = b"web.lab ssh-ed25519 AAAAweir\n"
HOSTS = {"/run/weir/trust/known_hosts": LINES, "/run/weir/trust/ssh_known_hosts": LINES}


def knowing(more: dict[str, bytes | str | None], **how: tuple[str, ...]) -> Rendered:
    made = view(binds=(
        Bind("/run/weir/trust/ssh_known_hosts", "/etc/ssh/ssh_known_hosts", absent="make"),
        Bind("/run/weir/trust/known_hosts", KNOWN_HOSTS, append=True, absent="make", known_hosts=True)), **how)
    return rendered(made, {**HOSTS, **more})


def test_weirs_host_keys_come_in_place_of_the_hosts_own() -> None:
    found = knowing({KNOWN_HOSTS: b"else.lab ssh-rsa AAAA\nweb.lab ssh-rsa AAAA\n", HOME + "/.ssh/id_ed25519": b"key",
                     "/etc/ssh/ssh_known_hosts": b"old"})
    assert at(found, KNOWN_HOSTS) == [
        ("--ro-bind-data", Data(b"else.lab ssh-rsa AAAA\n" + LINES), KNOWN_HOSTS)]
    assert not at(found, HOME + "/.ssh"), "what else is there stays what it is"
    assert at(found, "/etc/ssh/ssh_known_hosts") == [
        ("--ro-bind", "/run/weir/trust/ssh_known_hosts", "/etc/ssh/ssh_known_hosts")]


def test_a_directory_without_known_hosts_is_rebuilt_with_its_keys() -> None:
    found = knowing({HOME + "/.ssh/id_ed25519": b"key", HOME + "/.ssh/config": "-> ../work/config",
                     "/etc/ssh/ssh_config": b""})
    assert at(found, HOME + "/.ssh") == [("--tmpfs", HOME + "/.ssh")]
    assert at(found, HOME + "/.ssh/id_ed25519") == [("--bind", HOME + "/.ssh/id_ed25519", HOME + "/.ssh/id_ed25519")]
    assert at(found, KNOWN_HOSTS) == [("--ro-bind-data", Data(LINES), KNOWN_HOSTS)]
    assert at(found, "/etc/ssh") == [("--tmpfs", "/etc/ssh")]


def test_a_home_without_ssh_is_given_it_where_the_workload_may_write() -> None:
    found = knowing({})
    assert at(found, HOME + "/.ssh") == [("--tmpfs", HOME + "/.ssh")]
    assert at(found, KNOWN_HOSTS) == [("--ro-bind-data", Data(LINES), KNOWN_HOSTS)]
    assert not at(found, "/etc/ssh"), "no client of OpenSSH's is there"
    assert not at(knowing({}, writable=(), readable=(HOME,)), KNOWN_HOSTS)
    assert at(knowing({}, writable=(), readable=("/opt/venv",)), KNOWN_HOSTS), "an empty home"


def test_known_hosts_that_cannot_be_read_stay() -> None:
    made = view(binds=(Bind("/run/weir/trust/known_hosts", KNOWN_HOSTS, True, "make", True),))
    assert not at(rendered(made, {**HOSTS, KNOWN_HOSTS: b"x"}, closed=(KNOWN_HOSTS,)), KNOWN_HOSTS)
    assert not at(rendered(made, {**HOSTS, KNOWN_HOSTS: None}), KNOWN_HOSTS)


def test_what_ssh_config_includes_belongs_to_the_user() -> None:
    """OpenSSH: Bad owner or permissions on /etc/ssh/ssh_config.d/..., where root is nobody."""
    made = knowing({"/etc/ssh/ssh_config.d/10-a.conf": b"Host a\n",
                    "/etc/ssh/ssh_config.d/20-b.conf": "-> ../../../usr/lib/b.conf", "/usr/lib/b.conf": b"Host b\n",
                    "/etc/ssh/ssh_config.d/30-c.conf": "-> /run/c.conf", "/etc/ssh/ssh_known_hosts": b""})
    assert at(made, "/etc/ssh/ssh_config.d/10-a.conf") == [
        ("--ro-bind-data", Data(b"Host a\n"), "/etc/ssh/ssh_config.d/10-a.conf")]
    assert at(made, "/usr/lib/b.conf") == [("--ro-bind-data", Data(b"Host b\n"), "/usr/lib/b.conf")]
    assert not at(made, "/run/c.conf")
    assert not at(rendered(view(), {"/etc/ssh/ssh_config.d/10-a.conf": b""}), "/etc/ssh/ssh_config.d/10-a.conf")


# kubeconfigs


KNOWN = "/run/weir/trust/clusters.json"
CONFIG = HOME + "/.kube/config"
TALKS = b'{"clusters": [{"name": "k", "cluster": {"server": "https://k.example:6443"}}], "users": [{"name": "u", ' \
        b'"user": {"token": "SECRET"}}]}'


def kubernetes(more: dict[str, bytes | str | None], path: str = CONFIG, closed: tuple[str, ...] = ()) -> (
        list[tuple[str | Data, ...]]):
    known = render_clusters((Cluster("k", ("k.example",), 6443, ADDED.decode()),))
    made = view(binds=(Bind(KNOWN, path, kubeconfig=True),))
    return at(rendered(made, {KNOWN: known, **more}, closed=closed), path)


def test_a_kubeconfig_holds_nothing_worth_stealing() -> None:
    [(option, data, _)] = kubernetes({CONFIG: TALKS})
    assert isinstance(data, Data)
    assert option == "--bind-data"    # kubectl writes into it
    assert b"SECRET" not in data.content
    assert b64encode(ADDED) in data.content


def test_kubeconfigs_that_are_none_of_weirs_stay() -> None:
    assert kubernetes({CONFIG: b"apiVersion: v1\n"}) == []
    assert kubernetes({}) == []
    assert kubernetes({CONFIG: None}) == []


def test_a_kubeconfig_that_cannot_be_read_or_is_too_long_is_not_shown() -> None:
    for found in (kubernetes({CONFIG: TALKS}, closed=(CONFIG,)), kubernetes({CONFIG: b"a: b: c"})):
        [(_, data, _)] = found
        assert isinstance(data, Data)
        assert data.content.startswith(b"# Weir does not show this file")


def test_a_link_to_a_kubeconfig_is_followed_and_not_out_of_what_a_crew_may_write() -> None:
    real = HOME + "/real"
    known = render_clusters((Cluster("k", ("k.example",), 6443, ADDED.decode()),))
    made = view(binds=(Bind(KNOWN, CONFIG, kubeconfig=True),))
    found = rendered(made, {KNOWN: known, CONFIG: "-> ../real", real: TALKS})
    assert [option[0] for option in at(found, real)] == ["--bind-data"]
    out = rendered(made, {KNOWN: known, CONFIG: "-> /home/bob/config", "/home/bob/config": TALKS})
    assert [option for option in mounts(out) if "--bind-data" in option] == []


def test_a_pods_service_account() -> None:
    account, host = "/run/secrets/kubernetes.io/serviceaccount", "/run/weir/trust/"
    trust = ClusterTrust("/run/weir/trust", (Cluster("k", ("10.96.0.1",), 443, ADDED.decode()),))
    env = {b"KUBERNETES_SERVICE_HOST": b"10.96.0.1", b"KUBERNETES_SERVICE_PORT": b"443"}
    binds = tuple(service_binds(env, AUTHORITIES, trust))
    files: dict[str, bytes | str | None] = {host + name: content for name, content in trust.contents().items()}
    alone = rendered(view(binds=binds), files)
    assert at(alone, account + "/ca.crt") == [("--ro-bind", AUTHORITIES, account + "/ca.crt")]
    assert at(alone, account + "/token") == [("--ro-bind", host + "token", account + "/token")]
    assert at(alone, account + "/namespace") == [("--ro-bind", host + "namespace", account + "/namespace")]
    in_pod = rendered(view(binds=binds), {**files, account + "/namespace": "-> ..data/namespace",
                                          account + "/token": "-> ..data/token", account + "/..data/token": b"SECRET",
                                          account + "/..data/namespace": b"crews"})
    assert at(in_pod, account + "/namespace") == [("--ro-bind-data", Data(b"crews"), account + "/namespace")]
    assert at(in_pod, account + "/token") == [("--ro-bind", host + "token", account + "/token")]
    for other in ({}, {**env, b"KUBERNETES_SERVICE_PORT": b"444"}, {**env, b"KUBERNETES_SERVICE_PORT": b"x" * 9},
                  {**env, b"KUBERNETES_SERVICE_HOST": b"10.96.0.2\xff"}):
        assert not list(service_binds(other, AUTHORITIES, trust))
