"""What needs no machine: what of this host is given to the guest, and how a run is told."""
from __future__ import annotations

import debhost
import pytest

from vm import host, image
from vm.__main__ import Run, chosen, outcome, parse, render
from vm.machine import Done
from vm.steps import STEPS


@pytest.mark.parametrize(("text", "seen"), [
    ("http://127.0.0.1:3128", "http://10.0.2.2:3128"),
    ("https://user@localhost/simple", "https://user@10.0.2.2/simple"),
    ('Acquire::http::Proxy "http://[::1]:8000";', 'Acquire::http::Proxy "http://10.0.2.2:8000";'),
    ("http://localhost.example:80", "http://localhost.example:80"),
    ("https://registry.example/127.0.0.1x", "https://registry.example/127.0.0.1x"),
])
def test_this_hosts_loopback_has_another_address_in_the_guest(text: str, seen: str) -> None:
    assert host.seen_by_guest(text) == seen


def test_only_what_reaches_registries_is_given() -> None:
    variables = {"HTTPS_PROXY": "http://127.0.0.1:1", "PIP_INDEX_URL": "https://index.example/", "HOME": "/root",
                 "AWS_SECRET_ACCESS_KEY": "secret", "PIP_FIND_LINKS": "/here/only"}
    assert host.environment(variables) == {"HTTPS_PROXY": "http://10.0.2.2:1", "PIP_INDEX_URL": "https://index.example/"}


@pytest.mark.parametrize(("done", "said"), [
    (Done(0, "..\n\x1b[32m2 passed\x1b[0m, 1 skipped in 3.10s\n", 4.0), "passed: 2 passed, 1 skipped"),
    (Done(1, "==== 1 failed, 2 passed in 70.10s (0:01:10) ====", 71.0), "failed (1): 1 failed, 2 passed"),
    (Done(124, "..", 60.0), "out of time"),
    (Done(0, "", 1.0), "passed"),
])
def test_an_outcome_in_words(done: Done, said: str) -> None:
    assert outcome(done) == said


def test_what_did_not_pass_is_named() -> None:
    run = Run("abc1234", 37.0, {"kernel": "6.1"}, [(STEPS[0], Done(0, "", 5.0)), (
        STEPS[-1], Done(1, "FAILED tests/x.py::test_y - assert 0\n1 failed in 1.0s", 2.0))])
    assert run.failed
    text = render(run)
    assert "| kernel | 6.1 |" in text
    assert f"| {STEPS[0].name} | passed | 5 s |" in text
    assert "FAILED tests/x.py::test_y - assert 0" in text
    assert "quick" not in text
    assert "a fresh Debian 12 in" in text
    assert "a fresh Debian 13 in" in render(Run("abc1234", suite="trixie"))
    assert "quick: what bootstrap had installed" in render(Run("abc1234", 37.0, quick=True))


def test_a_quick_machine_has_what_bootstrap_would_install() -> None:
    packages = image.quick_packages()
    assert {"python3-bpfcc", "gcc", "postgresql-15", "linux-headers-amd64"} <= set(packages)
    assert len(packages) == len(set(packages))


def test_a_quick_machine_runs_what_is_asked_for() -> None:
    def names(*words: str) -> list[str]:
        return [one.name for one in chosen(parse(words))]

    assert names() == [one.name for one in STEPS]
    assert names("--quick") == []
    assert names("--quick", "--only", "install", "--only", "probes") == ["probes"]
    assert names("--quick", "--pytest", "tests/a.py -k b") == ["tests/a.py -k b"]


def test_on_another_debian_only_the_package_is_shown_by_what_debian_has() -> None:
    [step] = chosen(parse(["--suite", "trixie", "--packages", "dist"]))
    assert step.name == "package"
    for command in (step.command, step.then):
        assert "WEIR_PREFIX" not in command
        assert "sudo python3 -P -m pytest" in command
    [own] = chosen(parse(["--suite", "trixie", "--pytest", "tests/vm/profile.py"]))
    assert own.command.startswith("sudo python3")
    assert {"python3-pytest", "postgresql", "bubblewrap"} <= set(image.package_packages())


def test_every_debian_that_the_package_is_built_for_can_be_booted() -> None:
    assert set(image.NAMES) == set(debhost.SUITES)
