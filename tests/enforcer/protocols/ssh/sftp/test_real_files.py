"""Real files: OpenSSH's sftp-server behind the gate, asyncssh's client before it."""
from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncssh
import pytest
from filedesk import FileDesk, digest, secret
from sftpstage import SERVER, stage

pytestmark = pytest.mark.skipif(
    not SERVER.exists(), reason=f"no {SERVER}: apt-get install openssh-sftp-server (./bootstrap test does)")
BIG = 64 << 20


def below(*roots: Path) -> FileDesk:
    """Everything below the roots is permitted, nothing else."""
    def rule(action: str, path: str) -> str:
        return "permit" if any(path == str(root) or path.startswith(f"{root}/") for root in roots) else "deny"
    return FileDesk(rule)


async def denied(what: object) -> str:
    with pytest.raises(asyncssh.SFTPPermissionDenied) as told:
        await what  # type: ignore[misc]
    return str(told.value)


async def test_64_mib_both_ways(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * (BIG >> 20)
    (tmp_path / "source").write_bytes(content)
    desk = FileDesk(keep=False)
    async with stage(desk, tmp_path) as one:
        one.keep = False
        await one.client.put(str(tmp_path / "source"), "there")
        await one.client.get("there", str(tmp_path / "back"))
    assert (tmp_path / "there").read_bytes() == (tmp_path / "back").read_bytes() == content
    written, read = (booked for booked in desk.asked() if booked.verb == "open")
    assert written.tag == f"wrote {BIG} bytes sha256={digest(content)}"
    assert read.tag == f"read {BIG} bytes sha256={digest(content)}"
    assert written.requests == [("sftp:write", f"{tmp_path}/there")]
    assert written.text == f"open {tmp_path}/there for writing, create, truncate (written there)"


async def test_everything_that_a_client_does(tmp_path: Path) -> None:
    desk = FileDesk()
    async with stage(desk, tmp_path) as one:
        client = one.client
        assert await client.realpath(".") == str(tmp_path)
        await client.mkdir("d")
        async with client.open("d/a", "wb") as file:
            await file.write(b"one\ntwo\n")
            await file.fsync()
        async with client.open("d/a", "ab") as file:
            await file.write(b"three\n")
        assert (tmp_path / "d/a").read_bytes() == b"one\ntwo\nthree\n"
        assert sorted(str(name) for name in await client.listdir("d")) == [".", "..", "a"]
        assert (await client.stat("d/a")).size == 14
        await client.chmod("d/a", 0o600)
        await client.truncate("d/a", 3)
        await client.symlink("a", "d/link")
        assert await client.readlink("d/link") == "a"
        assert (await client.lstat("d/link")).size == 1
        await client.rename("d/a", "d/b")
        await client.posix_rename("d/b", "d/c")
        await client.link("d/c", "d/hard")
        assert (await client.statvfs("d")).bsize > 0
        async with client.open("d/c", "rb") as source, client.open("d/copy", "wb") as sink:
            await client._handler.copy_data(source._handle, 0, 0, sink._handle, 0)
        assert (tmp_path / "d/copy").read_bytes() == b"one"
        for name in ("link", "c", "hard", "copy"):
            await client.remove(f"d/{name}")
        await client.rmdir("d")
    assert {booked.verb for booked in desk.asked()} >= {
        "realpath", "mkdir", "open", "opendir", "stat", "setstat", "symlink", "readlink", "lstat", "rename",
        "posix-rename", "hardlink", "statvfs", "copy-data", "remove", "rmdir"}
    assert all(booked.status == "ok" for booked in desk.asked())
    assert [booked.tag for booked in desk.asked() if booked.verb == "opendir"] == ["listed 3 names"]


async def test_links_do_not_lead_out(tmp_path: Path) -> None:
    """What is judged is where a path leads to."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "key").write_text("secret")
    (inside / "link").symlink_to("../out/key")
    (inside / "dir").symlink_to(outside)
    (inside / "dangling").symlink_to(outside / "new")
    (inside / "own").write_text("mine")
    desk = below(inside)
    async with stage(desk, inside) as one:
        client = one.client
        for path in ("link", "dir/key", "../out/key", f"{inside}/../out/key", f"//{outside}//key", "dir/../out/key",
                     "./dir/./key", "link/"):
            assert await denied(client.open(path, "rb")) == "forbidden by rule", path
        for path in ("dangling", "dir/new", "../new"):
            await denied(client.open(path, "wb"))
        for what in (
            client.stat("link"), client.remove("dir/key"), client.rename("own", "dir/own"), client.mkdir("dir/d"),
            client.rename("dir/key", "key"), client.link("dir/key", "k"), client.listdir("dir"),
            client.lstat("dir/"), client.chmod("link", 0o777), client.truncate("link", 0), client.readlink("dir/key"),
            client.symlink("../out/key", "new"), client.realpath("dir"), client.lstat("dir/."), client.listdir(".."),
        ):
            await denied(what)
        assert await client.lexists("link")
        await client.remove("link")                       # the link itself is inside
        async with client.open("own", "rb") as file:
            assert await file.read() == b"mine"
    assert (outside / "key").read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["key"]
    assert ("sftp:write", f"{outside}/new") in [pair for booked in desk.asked() for pair in booked.requests]


async def test_the_last_name_may_be_tricky(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("x")
    (tmp_path / "link").symlink_to("d")
    async with stage(FileDesk(), tmp_path) as one:
        client = one.client
        for what in (client.rmdir("d/."), client.remove("f/"), client.rmdir("link/"), client.rename("d/..", "e"),
                     client.open("f/", "rb"), client.open("missing/", "wb"), client.rmdir("d/../d/.")):
            with pytest.raises(asyncssh.SFTPError):
                await what
        assert (tmp_path / "d").is_dir()
        assert (tmp_path / "f").exists()
        assert asyncssh.FILEXFER_TYPE_DIRECTORY == (await client.lstat("link/")).type
        assert asyncssh.FILEXFER_TYPE_SYMLINK == (await client.lstat("link")).type
        assert await client.realpath("") == str(tmp_path)
        assert await client.realpath("/") == "/"
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await client.open("", "rb")
        with pytest.raises(asyncssh.SFTPBadMessage):
            await client.open("f\0x", "rb")
        assert await client.exists("f")


async def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff\n")).write_text("odd")
    desk = FileDesk()
    async with stage(desk, tmp_path) as one:
        async with one.client.open(b"a\xff\n", "rb", encoding=None) as file:
            assert await file.read() == b"odd"
    assert desk.last("open").requests == [("sftp:read", f"{tmp_path}/a\\xff\n")]
    assert desk.last("open").text == f"open {tmp_path}/a\\xff\\n for reading (written a\\xff\\n)"


async def test_what_does_not_exist_is_told_only_to_whom_it_is_permitted(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    async with stage(below(inside), inside) as one:
        await denied(one.client.stat(f"{tmp_path}/missing/x"))
        await denied(one.client.stat("/root/missing/x"))
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await one.client.stat("missing/x")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await one.client.open("missing/x", "wb")


async def test_a_link_that_changes_in_between(tmp_path: Path) -> None:
    """Between the answer to REALPATH and OPEN the file becomes a link to what is forbidden."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/key").write_text("secret")
    (tmp_path / "in").mkdir()
    file = tmp_path / "in/file"
    file.write_text("harmless")
    desk = below(tmp_path / "in")
    rule = desk.rule

    def swap(action: str, path: str) -> str:
        if action == "sftp:read":
            file.unlink()
            file.symlink_to(tmp_path / "out/key")
        return rule(action, path)

    desk.rule = swap
    async with stage(desk, tmp_path / "in") as one:
        assert "lead elsewhere" in await denied(one.client.open("file", "rb"))
        desk.rule = rule
        await one.client.mkdir("still")
    opened = desk.last("open")
    assert (opened.status, opened.content("out")) == ("error", b"")
    assert any(booked.verb == "close" and booked.own for booked in desk.booked.values())


async def test_a_link_that_changes_while_people_decide(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "d/x").write_text(name)
    desk = FileDesk(lambda action, path: "hold" if action == "sftp:remove" else "permit")
    async with stage(desk, tmp_path / "in") as one:
        for moves in (False, True):
            removing = asyncio.ensure_future(one.client.remove("d/x"))
            while not desk.held:
                await asyncio.sleep(0.001)
            if moves:
                (tmp_path / "in/d").rename(tmp_path / "in/e")
                (tmp_path / "in/d").symlink_to(tmp_path / "out/d")
            desk.answer()
            if moves:
                assert "lead elsewhere" in await denied(removing)
            else:
                await removing
                (tmp_path / "in/d/x").write_text("again")
    assert (tmp_path / "out/d/x").exists()
    assert (tmp_path / "in/e/x").exists()


async def test_labelled_content(tmp_path: Path) -> None:
    """It is masked, and does not get out in another way."""
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys/a.key"
    key.write_text("line one\nline two\n")
    (tmp_path / "link").symlink_to("keys/a.key")
    desk = FileDesk()
    async with stage(desk, tmp_path, secret(f"{tmp_path}/keys/*")) as one:
        client = one.client
        for path in ("keys/a.key", "link"):
            async with client.open(path, "rb") as file:
                assert await file.read() == b"********\n********\n"
        assert desk.last("open").content("out") == b"********\n********\n"
        for what in (
            client.open("keys/a.key", "r+b"), client.open("keys/a.key", "wb"), client.open("link", "ab"),
            client.rename("keys/a.key", "a"), client.rename("keys", "k"), client.posix_rename("keys", "k"),
            client.link("keys/a.key", "a"), client.link("link", "keys/x"), client.symlink("keys/a.key", "b"),
            client.truncate("keys/a.key", 1), client.rename("link", "keys/a.key"), client.open("keys/new", "wb"),
        ):
            assert "masked for you: secret" in await denied(what)
        source, sink = await client.open("link", "rb"), await client.open("copy", "wb")
        await denied(client._handler.copy_data(source._handle, 0, 0, sink._handle, 0))
        await source.close()
        await sink.close()
        assert (tmp_path / "copy").read_bytes() == b""
    assert key.read_text() == "line one\nline two\n"
    assert not (tmp_path / "k").exists()


async def test_labels_in_a_directory_that_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.key").write_text("secret")
    (tmp_path / "f").write_text("plain")
    async with stage(FileDesk(), tmp_path, secret("*.key")) as one:
        await one.client.rename("f", "g")                # a file has nothing in it
        await one.client.posix_rename("g", "f")
        for name in ("rename", "posix_rename"):
            assert "masked for you" in await denied(getattr(one.client, name)("d", "e"))
            assert "masked for you" in await denied(getattr(one.client, name)("f", "f.key"))
    assert (tmp_path / "d/a.key").exists()


async def test_memory_of_the_server_is_no_way_around(tmp_path: Path) -> None:
    async with stage(FileDesk(), tmp_path, secret("*.key")) as one:
        await denied(one.client.open("/proc/self/mem", "r+b"))
        async with one.client.open("/proc/self/environ", "rb") as file:
            assert set(await file.read(1000)) <= {0x2A, 0x0A}


async def test_labels_that_may_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_text("seen")
    async with stage(FileDesk(unmasked=True), tmp_path, secret("*.key")) as one:
        async with one.client.open("a.key", "rb") as file:
            assert await file.read() == b"seen"
        await one.client.rename("a.key", "b.key")
    assert (tmp_path / "b.key").exists()


async def test_a_hold_keeps_only_what_depends_on_it(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("h")
    (tmp_path / "free").write_text("f")
    desk = FileDesk(lambda action, path: "hold" if path.endswith("held") and action == "sftp:remove" else "permit")
    async with stage(desk, tmp_path) as one:
        removing = asyncio.ensure_future(one.client.remove("held"))
        while not desk.held:
            await asyncio.sleep(0.001)
        looking = asyncio.ensure_future(one.client.exists("held"))
        assert await one.client.exists("free")
        assert not looking.done()
        assert (tmp_path / "held").exists()
        desk.answer()
        await removing
        assert await looking is False
        assert desk.settled()
        again = asyncio.ensure_future(one.client.remove("held"))
        while not desk.held:
            await asyncio.sleep(0.001)
        desk.answer(False)
        await denied(again)
    assert not (tmp_path / "held").exists()


async def test_what_is_left_open_is_booked(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    desk = FileDesk(lambda action, path: "hold" if action == "sftp:remove" else "permit")
    async with stage(desk, tmp_path, payload="none") as one:
        file = await one.client.open("a", "rb")
        assert await file.read(2) == b"ab"
        removing = asyncio.ensure_future(one.client.remove("a"))
        while not desk.held:
            await asyncio.sleep(0.001)
    with pytest.raises(asyncssh.SFTPConnectionLost):
        await removing
    assert desk.last("open").tag == f"read 2 bytes sha256={digest(b'ab')}; left open"
    assert desk.last("open").kept == {False}
    assert desk.withdrawn == 1
    assert (tmp_path / "a").exists()


async def test_pieces_out_of_order(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "a").write_bytes(content)
    desk = FileDesk()
    async with stage(desk, tmp_path) as one:
        async with one.client.open("a", "rb") as file:
            await file.read(1000, 50_000)
            await file.read(1000, 0)
        assert "not in order" in desk.last("open").tag
        async with one.client.open("a", "rb") as file:
            await file.read(1000, 50_000)
        assert desk.last("open").tag == f"read 1000 bytes from 50000 sha256={digest(content[50_000:51_000])}"
        async with one.client.open("b", "wb") as file:
            await file.write(b"cd", 2)
            await file.write(b"ab", 0)
        assert "wrote 4 bytes not in order" in desk.last("open").tag
