"""The agent's life as a process: start, watch, repair, kill -9, reload, stop, release.  In a network namespace of its
own, with a real block of nftables, a real launcher and real crews; the probes, the enforcer and the recorder are small
stand-ins (tests/standin), for what is held here is the agent's part.
"""
from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin.crew import CONNECT, Crew
from standin.host import CGROUPS, CONFIG, PORT, Host

from agent.contract import control
from agent.control import QUIET
from agent.frames import Frames, send
from agent.services import AHEAD

pytestmark = pytest.mark.kernel

@pytest.fixture(scope="module")
def steady() -> Iterator[Host]:
    """One host for the tests that leave it as it was."""
    host = Host(f"wt-{os.getpid() % 10000}")
    try:
        host.start()
        yield host
    finally:
        host.close()


@pytest.fixture
def host() -> Iterator[Host]:
    one = Host(f"wu-{os.getpid() % 10000}")
    try:
        yield one
    finally:
        one.close()


def enforcing(host: Host) -> bool:
    return bool(host.status().get("state") == "enforcing")


# what it is while it runs


def test_a_crew_is_attributed(steady: Host) -> None:
    with Crew(steady) as crew:
        found = crew.whose()
        owner = found["owner"]
        assert isinstance(owner, dict)
        assert (owner["workload"], owner["user"], owner["subject"], owner["groups"]) == (
            "crew", "games", "local:games", ["data"])
        assert (owner["destination"], owner["port"], owner["target"]) == ("192.0.2.4", 5432, "orders")
        assert owner["attribution"] == "redirect"
        assert owner["cgroup"].startswith(f"/{steady.name}.slice/crew-")
        assert found["user"] == "svc"
        egress = crew.whose("192.0.2.3", 443)["owner"]
        assert isinstance(egress, dict)
        assert (egress["egress"], egress["target"]) == ("model", "")
        other = crew.whose("192.0.2.3", 444)["owner"]
        assert isinstance(other, dict)
        assert (other["egress"], other["target"]) == ("", "")


def test_who_is_no_crew_is_nobody(steady: Host) -> None:
    done = subprocess.run(steady.inside("/usr/bin/python3", "-c", CONNECT), input=f"127.0.0.1 {PORT}\n", text=True,
                          capture_output=True, timeout=30)
    assert json.loads(done.stdout)["owner"] is None


def test_codes_and_words_come_back(steady: Host) -> None:
    assert steady.run("/usr/bin/id", "-un") == (0, "games\n", "")
    assert steady.run("/bin/sh", "-c", "exit 7")[0] == 7
    code, out, err = steady.run("no-such-command")
    assert (code, out) == (127, "")
    assert "command not found" in err
    done = steady.weir("run", "--workload", "nobody-knows", "--user", "games", "--", "id")
    assert (done.returncode, done.stderr) == (125, "weir: there is no workload 'nobody-knows'\n")
    assert "name an unprivileged user" in steady.weir("run", "--workload", "crew", "--", "id").stderr


def test_who_may_start_nothing_fills_no_recording(steady: Host) -> None:
    """Whatever workload it names: one event a second, of no workload, and no number is used up."""
    def numbers() -> object:
        return json.loads((steady.base / "run" / "owners.json").read_text())["next"]

    time.sleep(QUIET)                 # what was refused before this test is told of
    before, made = numbers(), len(steady.events("launch.refused"))
    began = time.monotonic()
    for number in range(50):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(steady.base / "run" / "control.sock"))
            send(one, control.render_frame(control.Run(f"mine-{number}", "", (b"id",), b"/", {}, False)), [0, 1, 2])
            body = Frames(one, control.LIMIT).next()
            assert body is not None
            assert f"there is no workload 'mine-{number}'" in str(control.parse_to_runner(body))
    seconds = time.monotonic() - began
    assert numbers() == before
    steady.until(lambda: steady.events("launch.refused")[made:], "launch.refused")
    assert steady.run("/bin/true")[0] == 0       # in the recording after them
    steady.until(lambda: [one for one in steady.events("exit") if one["code"] == "0"], "exit")
    found = steady.events("launch.refused")[made:]
    assert 1 <= len(found) <= seconds + 1
    assert {one["workload"] for one in found} == {""}


def test_what_a_launch_leaves_in_the_recording(steady: Host) -> None:
    steady.run("/bin/sh", "-c", "exit 3")
    exit_event = steady.until(lambda: [one for one in steady.events("exit") if one["code"] == "3"], "exit")[0]
    launch = next(one for one in steady.events("launch") if one["owner"] == exit_event["owner"])
    assert (launch["user"], launch["by"], launch["command"], launch["workload"]) == ("games", "root", "/bin/sh", "crew")
    assert not Path(launch["cgroup"]).exists()


def test_the_enforcer_holds_nothing(steady: Host) -> None:
    status = steady.status()
    for service, user, nice in (("enforcer", "weir", AHEAD), ("recorder", "weir-audit", 0)):
        pid = status[service]["pid"]
        proc = Path("/proc", str(pid))
        facts = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
        uid = int(subprocess.run(["id", "-u", user], capture_output=True, text=True, check=True).stdout)
        assert facts["Uid"].split() == [str(uid)] * 4
        assert facts["Groups"].split() in ([], [facts["Gid"].split()[0]])
        assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"].strip() == "2"
        assert os.getpriority(os.PRIO_PROCESS, pid) == nice
        assert f"/{steady.name}.weir/{service}\n" in (proc / "cgroup").read_text()
        assert "Max core file size        0                    0" in (proc / "limits").read_text()
        environment = (proc / "environ").read_bytes().decode()
        assert "hunter2" not in environment
        # It sees no other place for what SQLite sorts.
        assert (f"\0SQLITE_TMPDIR={steady.base}/" in environment) == (service == "recorder")


def test_status_for_people_and_programs(steady: Host) -> None:
    status = steady.status()
    assert (status["state"], status["reasons"], status["runtime"]) == ("enforcing", [], steady.name)
    assert status["targets"][0]["addresses"] == ["192.0.2.4"]
    assert status["listeners"] == [f"127.0.0.1:{PORT}", f"[::1]:{PORT}"]
    assert any("add the root file" in hint for hint in status["hints"])
    done = steady.weir("status")
    assert done.returncode == 0
    assert done.stdout.startswith("enforcing: ")
    assert "\x1b" not in done.stdout


# who may ask what


@pytest.mark.parametrize("arguments", [
    ("status",), ("approvals", "list"), ("approvals", "approve", "abc123"), ("stop",), ("release", "--kill"),
    ("reload",), ("login", "--device"), ("logout",),
    ("run", "--workload", "crew", "--", "id")])
@pytest.mark.parametrize("user", [0, 5])
def test_a_crew_is_refused_whatever_its_uid(steady: Host, arguments: tuple[str, ...], user: int) -> None:
    code = "import os, sys; open(sys.argv[1], 'w').write('0'); os.setgroups([]); os.setgid(int(sys.argv[2])); " \
           "os.setuid(int(sys.argv[2])); os.execv(sys.argv[3], sys.argv[3:])"
    (steady.slice / "by-hand").mkdir(exist_ok=True)
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code, str(steady.slice / "by-hand" / "cgroup.procs"), str(user), "/usr/bin/env",
         steady.python, "-m", "agent.cli", "--config", str(steady.file), *arguments], env=steady.environment,
        capture_output=True, text=True, timeout=30, cwd="/", stdin=subprocess.DEVNULL)
    assert done.returncode in (1, 125)
    assert "a crew may not speak to Weir's agent" in done.stderr
    refused = steady.until(lambda: steady.events("control.refused"), "refusal")
    assert {one["reason"] for one in refused} >= {"a crew may not speak to Weir's agent"}


def test_what_others_may_ask(steady: Host) -> None:
    assert steady.json("status", user=5)["state"] == "enforcing"
    for arguments in (("stop",), ("release",), ("reload",)):
        done = steady.weir(*arguments, user=5)
        assert (done.returncode, done.stderr) == (1, "weir: only root may do this\n")
    done = steady.weir("approvals", "approve", "abc123", user=5)
    assert (done.returncode, done.stderr) == (
        1, "weir: only root and members of the approvers' group (weir-approvers) may do this\n")
    assert "members of the auditors' group (" in steady.weir("status", "--sessions", user=5).stderr
    assert steady.json("status", "--sessions")["sessions"] == []
    assert "games is not among" not in steady.weir("run", "--workload", "crew", "--", "id", user=5).stderr


def test_approvers_by_their_unix_group(steady: Host) -> None:
    group = subprocess.run(["getent", "group", "weir-approvers"], capture_output=True, text=True, check=True).stdout
    command = ["setpriv", "--reuid", "5", "--regid", "60", "--groups", group.split(":")[2], "--", steady.python, "-m",
               "agent.cli", "--config", str(steady.file), "approvals"]
    done = subprocess.run([*command, "list", "--json"], env=steady.environment, capture_output=True, text=True, cwd="/")
    assert json.loads(done.stdout)[0]["ticket"] == "abc123"
    done = subprocess.run([*command, "approve", "abc123"], env=steady.environment, capture_output=True, text=True,
                          cwd="/")
    assert done.returncode == 1
    assert "local:games is in none of the groups" in done.stderr


def test_approvals(steady: Host) -> None:
    done = steady.weir("approvals")
    assert done.returncode == 0
    assert "sql:delete public.orders" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\\x1b]0;x\\x07" in done.stdout
    assert steady.weir("approvals", "approve", "abc123", "--reason", "fine").returncode == 0
    assert steady.weir("approvals", "deny", "abc123").returncode == 2
    assert steady.json("approvals", "deny", "abc123", "--reason", "no") == {"error": ""}


# what breaks


def test_an_enforcer_that_dies_is_started_again_and_who_waits_is_served(steady: Host) -> None:
    with Crew(steady) as crew:
        assert crew.whose()["owner"]
        before = steady.status()["enforcer"]
        steady.kill(before["pid"])
        crew.ask("192.0.2.4", 5432)
        assert json.loads(crew.answer())["owner"]["target"] == "orders"
        after = steady.until(lambda: steady.status()["enforcer"], "enforcer")
        assert after["pid"] != before["pid"]
        assert after["restarts"] == before["restarts"] + 1
    assert any("killed by signal 9" in one["reason"] for one in steady.events("enforcer.ended"))


def test_an_enforcer_that_hangs_is_ended(steady: Host) -> None:
    before = steady.status()["enforcer"]["pid"]
    (CGROUPS / f"{steady.name}.weir" / "enforcer" / "cgroup.freeze").write_text("1")
    steady.until(lambda: steady.status()["enforcer"]["pid"] not in (0, before) and enforcing(steady), "new enforcer")
    assert not Path("/proc", str(before)).exists()
    assert any("did not answer within" in one["reason"] for one in steady.events("enforcer.ended"))


def test_an_enforcer_that_a_signal_stopped_goes_on(steady: Host) -> None:
    before = steady.status()["enforcer"]["pid"]
    os.kill(before, signal.SIGSTOP)
    said = steady.event("enforcer.suspended")
    assert (said["pid"], said["done"]) == (str(before), "continued")
    steady.until(lambda: enforcing(steady), "enforcing")
    assert steady.status()["enforcer"]["pid"] == before, "its sessions live on"


def test_a_recorder_that_dies_is_started_again(steady: Host) -> None:
    before = steady.status()["recorder"]["pid"]
    steady.kill(before)
    steady.until(lambda: steady.status()["recorder"]["pid"] not in (0, before) and enforcing(steady), "new recorder")
    assert any("killed by signal 9" in one["reason"] for one in steady.events("recorder.ended"))
    assert any("recorder:" in one["reason"] for one in steady.events("blocked"))


def test_a_launcher_that_dies_takes_its_crews_with_it(steady: Host) -> None:
    with Crew(steady) as crew:
        assert crew.whose()["owner"]
        [launcher] = [pid for pid in children(steady.agent.pid) if comm(pid) == "weir-launcher"]
        steady.kill(launcher)
        assert crew.end() == 125
    steady.until(lambda: enforcing(steady) and not steady.status()["workloads"], "launcher")
    assert steady.run("/bin/sh", "-c", "exit 4")[0] == 4


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_rules_that_are_taken_away_are_put_back(steady: Host) -> None:
    subprocess.run(steady.inside("nft", "delete", "table", "inet", steady.name), check=True)
    steady.until(lambda: steady.events("repaired"), "repair")
    listed = subprocess.run(steady.inside("nft", "list", "table", "inet", steady.name), capture_output=True, text=True)
    assert listed.stdout.count("cgroupv2") == 2
    assert steady.events("repaired")[-1]["found"] == "the table is not as it should be"
    steady.until(lambda: enforcing(steady), "enforcing")


def test_what_cannot_be_repaired_is_said_and_nothing_is_started(steady: Host) -> None:
    stuck = steady.slice / "self-probe-stuck"
    stuck.mkdir()
    try:
        steady.until(lambda: steady.status()["state"] == "degraded", "degraded")
        done = steady.weir("status")
        assert done.returncode == 1
        assert "something may get through\n  because stuck" in done.stdout
        code, _, err = steady.run("/usr/bin/id")
        assert (code, err) == (125, "weir: Weir is degraded and starts nothing: stuck\n")
    finally:
        stuck.rmdir()
    steady.until(lambda: enforcing(steady), "enforcing")
    assert any(one["reason"] == "stuck" for one in steady.events("degraded") if "reason" in one)


# configuration


def test_reload(steady: Host) -> None:
    text = CONFIG + '[[egress]]\nname = "more"\naddresses = ["192.0.2.7"]\nports = [80]\n'
    text += '[egress_policy]\nmode = "record"\n'
    try:
        steady.write(text)
        assert steady.weir("reload").returncode == 0
        assert [one["name"] for one in steady.status()["egress"]] == ["model", "more"]
        assert steady.status()["modes"] == {"crew": "record"}
        steady.write(text.replace("port = 5432", "port = 0"))
        done = steady.weir("reload")
        assert done.returncode == 1
        assert "target[1].port: 0 is out of bounds" in done.stderr
        steady.write(text.replace('name = "more"', 'name = "less"').replace(f"port = {'{port}'}", "port = 15000"))
        assert "enforcer.port: cannot be changed by a reload" in steady.weir("reload").stderr
        policy = steady.base / "etc" / "policies" / "b.cedar"
        policy.write_text('@id("WRONG") permit (principal, action, resource);')
        steady.write(text.replace('name = "more"', 'name = "less"'))
        done = steady.weir("reload")
        assert done.stderr == f"weir: {policy}:1:1: WRONG is wrong\n"
        assert [one["name"] for one in steady.status()["egress"]] == ["model", "more"]
        policy.unlink()
    finally:
        steady.write(CONFIG)
    assert steady.agent is not None
    steady.agent.send_signal(signal.SIGHUP)
    steady.until(lambda: len(steady.status()["egress"]) == 1, "reload by SIGHUP")
    steady.until(lambda: steady.events("config.reloaded")[1:], "events")
    assert len(steady.events("config.refused")) == 3
    assert [(one["workload"], one["before"], one["mode"]) for one in steady.events("egress.mode")] == [
        ("crew", "enforce", "record"), ("crew", "record", "enforce")]


@contextlib.contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the workload's user outside."""
    with subprocess.Popen(["sleep", "600"], user=5, group=60, extra_groups=[]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_a_workload_shares_is_said_once(steady: Host) -> None:
    """By `weir run` in one line, below the workload, and in the recording; `weir run` itself is nobody else."""
    shared = steady.base / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    try:
        steady.write(CONFIG.replace('users = ["games"]', f'users = ["games"]\ndirectories = ["{shared}"]\nroot = true'))
        assert steady.weir("reload").returncode == 0
        with sleeping(), Crew(steady) as crew:
            assert crew.process.stderr is not None
            said = [crew.process.stderr.readline() for _ in range(2)]
            assert said[0].startswith("weir: inside, games is root")
            assert said[1].startswith("weir: degraded: user games has 1 process outside of any workload (sleep), which")
            assert f"; {shared}: everybody may write: let it" in said[1]
            [shown] = steady.status()["workloads"]
            assert (shown["root"], len(shown["degraded"])) == (True, 2)
            assert "degraded: user games has" in steady.weir("status").stdout
            assert steady.status()["state"] == "enforcing", "the block is whole"
            assert "user games has 1 process" in steady.event("workload.degraded")["what"]
            assert crew.whose()["owner"]["uid"] == 5, "outside it is the user"  # type: ignore[index]
    finally:
        steady.write(CONFIG)
        assert steady.weir("reload").returncode == 0


def test_a_socket_that_came_after_the_start_is_refused(steady: Host) -> None:
    try:
        steady.write(CONFIG.replace("port = 5432", 'port = 5432\nsockets = ["/tmp/.s.PGSQL.5432"]'))
        assert "sockets of target orders: they are opened when the agent starts" in steady.weir("reload").stderr
    finally:
        steady.write(CONFIG)


def test_a_wrong_policy_at_the_start_is_no_state_to_be_in(host: Host) -> None:
    (host.base / "etc" / "policies" / "a.cedar").write_text("WRONG")
    host.start(wait="")
    assert host.wait() == 1
    assert "a.cedar:1:1: WRONG is wrong" in host.said()
    assert host.slice.exists()
    assert host.weir("status").returncode == 3


def test_a_full_disk_blocks_and_says_so(host: Host) -> None:
    host.write(CONFIG.replace('reserve = "1MiB"', 'reserve = "1TiB"'))
    host.start(wait="blocked")
    assert "1048576 MiB are free" in host.status()["reasons"][0]


# end


def test_kill_9_cuts_off_and_the_next_agent_knows_whose_tasks_run(host: Host) -> None:
    host.start()
    with Crew(host) as crew, Crew(host) as other:
        assert crew.whose()["owner"]
        assert other.whose()["owner"]
        assert host.agent is not None
        enforcer = host.status()["enforcer"]["pid"]
        host.agent.kill()
        host.agent.wait()
        gone(enforcer)
        assert crew.connect("192.0.2.4", 5432) in ("ConnectionRefusedError", "closed", "TimeoutError")
        assert host.weir("status").returncode == 3
        host.start()
        owner = crew.whose()["owner"]
        assert isinstance(owner, dict)
        assert (owner["workload"], owner["target"]) == ("crew", "orders")
        assert len(host.status()["workloads"]) == 2
        assert crew.end() == 0        # its launcher of before still serves it
        host.until(lambda: len(host.status()["workloads"]) == 1, "sweep")
        assert any(one["code"] == "not known" for one in host.events("exit"))
        damage = host.base / "run" / "owners.json"
        host.agent.kill()
        host.agent.wait()
        damage.write_text("{")
        host.start()
        assert other.whose()["owner"] is None


def gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while Path("/proc", str(pid)).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path("/proc", str(pid)).exists()


def test_stop_leaves_the_block_and_release_takes_it_away(host: Host) -> None:
    host.start()
    with Crew(host) as crew:
        assert crew.whose()["owner"]
        done = host.weir("release")
        assert done.returncode == 1
        assert "processes run in the slice" in done.stderr
        assert enforcing(host)
        pids = [host.status()[name]["pid"] for name in ("enforcer", "recorder")]
        done = host.weir("stop")
        assert (done.returncode, done.stdout) == (0, "stopped; the block is in place (weir release takes it away)\n")
        assert host.wait() == 0
        assert not any(Path("/proc", str(pid)).exists() for pid in pids)
        assert host.events()[-1]["name"] == "agent.stopped"
        assert not (CGROUPS / f"{host.name}.weir").exists()
        assert crew.connect("192.0.2.4", 5432) in ("ConnectionRefusedError", "TimeoutError")
        host.agent = None
        host.start()
        assert crew.whose()["owner"]
        done = host.weir("release", "--kill")
        assert (done.returncode, done.stdout) == (0, "released: nothing is contained any more\n")
        assert host.wait() == 0
        crew.process.wait(20)
    assert not host.slice.exists()
    listed = subprocess.run(host.inside("nft", "list", "tables"), capture_output=True, text=True).stdout
    assert host.name not in listed
    [released] = host.events("released")
    assert int(released["killed"]) > 0
    assert host.events()[-1]["name"] == "agent.stopped"


def test_a_port_that_is_taken(host: Host) -> None:
    holder = subprocess.Popen(host.inside("/usr/bin/python3", "-c", "import socket, time\n"
                              f"s = socket.create_server(('127.0.0.1', {PORT}))\nprint(flush=True)\ntime.sleep(100)"),
                              stdout=subprocess.PIPE)
    subprocess.run(host.inside("ip", "link", "set", "lo", "up"), check=True)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        host.start(wait="")
        assert host.wait() == 1
        assert f"127.0.0.1 port {PORT}: Address already in use" in host.said()
        assert not (CGROUPS / f"{host.name}.weir").exists()
        assert not (host.base / "run" / "control.sock").exists()
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.slow
def test_kill_9_at_any_moment(host: Host) -> None:
    """Agent, enforcer and recorder, together or one by one, while a crew connects: it is attributed or cut off, and
    work resumes.  Nothing but Weir's answers ever comes back."""
    chance = random.Random(3)
    host.start()
    with Crew(host) as crew:
        for round_number in range(40):
            status = host.status()
            assert host.agent is not None
            crew.ask("192.0.2.4", 5432)
            if chance.random() < 0.6:
                host.agent.kill()
                host.agent.wait()
                if chance.random() < 0.5:
                    host.start(wait="")
                    time.sleep(chance.random())
                    assert host.agent is not None
                    host.agent.kill()
                    host.agent.wait()
                host.start(wait="")
            for name in ("enforcer", "recorder"):
                if chance.random() < 0.5 and status.get(name, {}).get("pid"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(status[name]["pid"], signal.SIGKILL)
            said = crew.answer()
            assert said in ("closed", "ConnectionRefusedError", "TimeoutError", "ConnectionResetError") or (
                json.loads(said)["owner"] is None or json.loads(said)["owner"]["workload"] == "crew")
            host.until(lambda: host.status().get("state") == "enforcing", f"enforcing in round {round_number}")
            owner = crew.whose()["owner"]
            assert isinstance(owner, dict)
            assert owner["target"] == "orders"
    torn = [path for path in (host.base / "state" / "journal").iterdir() if path.name.startswith(".")]
    assert torn in ([], [host.base / "state" / "journal" / ".taken.new"])


def test_release_without_an_agent(host: Host) -> None:
    host.start()
    with Crew(host) as crew:
        assert crew.whose()["owner"]
        assert host.agent is not None
        host.agent.kill()
        host.agent.wait()
        done = host.weir("release", inside=True)
        assert done.returncode == 1
        assert "processes run in the slice" in done.stderr
        assert host.slice.exists()
        done = host.weir("release", "--kill", inside=True)
        assert (done.returncode, done.stderr) == (0, "")
        crew.process.wait(20)
    assert not host.slice.exists()
    files = sorted((host.base / "state" / "journal").glob("agent-*.journal"), key=lambda path: path.stat().st_mtime_ns)
    last = files[-1].read_bytes()
    assert b"releasing" in last
    assert b"released" in last
    assert not (CGROUPS / f"{host.name}.weir").exists()


def test_two_agents_on_one_machine(host: Host) -> None:
    host.start()
    done = host.weir("agent", inside=True)
    assert done.returncode == 1
    assert host.agent is not None
    assert f"another agent runs on this machine (pid {host.agent.pid})" in done.stderr
    assert enforcing(host)
