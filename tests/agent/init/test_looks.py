"""What looks like a crew, and what it needs to see."""
from __future__ import annotations

import pytest

from agent.init.looks import needed, why_a_crew


@pytest.mark.parametrize(("words", "packages", "script", "said"), [
    (("/opt/crew/venv/bin/crewai", "run"), (), b"", "its command names crewai"),
    (("/usr/bin/python3", "-m", "langchain_cli"), (), b"", ""),
    (("/usr/bin/python3", "-m", "crewai.cli"), (), b"", "its command names crewai"),
    (("/opt/x/bin/python", "main.py"), ("pip", "crewai"), b"", "crewai is installed beside /opt/x/bin/python"),
    (("/usr/bin/python3.11", "-u", "main.py"), (), b"#!x\nfrom langgraph.graph import Graph\n",
     "/srv/app/main.py imports langgraph"),
    (("/usr/bin/python3", "main.py"), (), b"  import autogen\n", "/srv/app/main.py imports autogen"),
    (("/usr/bin/python3", "main.py"), (), b"# import crewai\nimport crewaix\n", ""),
    (("/usr/sbin/nginx", "-g", "daemon off;"), (), b"import crewai\n", ""),
    (("/srv/agents/run.sh",), (), b"", ""), ((), (), b"", "")])
def test_commands(words: tuple[str, ...], packages: tuple[str, ...], script: bytes, said: str) -> None:
    assert why_a_crew(words, "/srv/app", lambda _: packages, lambda _: script) == said


@pytest.mark.parametrize(("words", "directory", "seen"), [
    (("/opt/crew/venv/bin/python", "/opt/crew/app/main.py"), "/opt/crew", ("/opt/crew",)),
    (("/usr/bin/python3", "main.py"), "/srv/app/now", ("/srv/app",)),
    (("/usr/bin/python3", "/home/crew/main.py"), "/home/crew", ()),
    (("/usr/bin/python3", "/var/lib/app/main.py"), "", ("/var/lib/app",)),
    (("/data/venv/bin/crewai", "run"), "/", ("/data/venv",)), ((), "", ()),
    # What no workload is shown, and what could stand in no configuration.
    (("/usr/bin/python3", "main.py"), "/var", ()), (("/usr/bin/python3", "main.py"), "/srv/a\n[[target]]", ())])
def test_what_it_needs(words: tuple[str, ...], directory: str, seen: tuple[str, ...]) -> None:
    assert needed(words, directory, "/home/crew") == seen
