"""Pure: what podman or docker is told, so that a container is a workload's and finds Weir."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.config import Config
from agent.credential.trust import SYSTEM_BUNDLE, SYSTEM_HOSTS, USER_HOSTS
from agent.settings.credential_table import KUBERNETES, SSH
from agent.settings.host_table import Workload
from agent.settings.target_table import TargetEntry
from agent.ssh.host_keys import KNOWN
from agent.workload.container import PLAIN, slice_of
from agent.workload.workloads import TRUST_VARIABLES

SYSTEMD, CGROUPFS = "systemd", "cgroupfs"     # who makes the runtime's cgroups
PODMAN, DOCKER = "podman", "docker"
PROFILE: Final = "seccomp.json"


def render_args(
    config: Config, workload: Workload, uid: int, gid: int, manager: str, engine: str = PODMAN,
) -> tuple[str, ...]:
    """One argument each; none has a space that the operator has not put into a name.  `uid` and `gid`: of the user that
    it is for policies."""
    # Else podman's monitor is in the slice too, and the runtime that it starts: BPF LSM would refuse that bpf(2).
    outside = ("--cgroups=no-conmon",) if engine == PODMAN else ()
    return *outside, *_args(config, workload, uid, gid, manager)


def _args(config: Config, workload: Workload, uid: int, gid: int, manager: str) -> Iterator[str]:
    trust, name = config.run / "trust", config.runtime.name
    yield "--cgroup-parent=" + (slice_of(name, workload.name) if manager == SYSTEMD else
                                f"/{name}.slice/{slice_of(name, workload.name, PLAIN)}")
    yield "--network=none"
    yield f"--user={uid}:{gid}"
    yield "--cap-drop=all"
    yield "--security-opt=no-new-privileges"
    yield f"--security-opt=seccomp={trust / PROFILE}"
    yield _volume(trust / "resolv.conf", "/etc/resolv.conf")
    if any(one.certified for one in config.targets):
        yield _volume(trust / "roots.pem", SYSTEM_BUNDLE)
        yield from (_volume(trust / "weir.pem", file) for file in files(config))
        yield from (f"--env={variable.decode()}={SYSTEM_BUNDLE}" for variable in TRUST_VARIABLES)
    if any(one.protocol == SSH for one in config.targets):
        yield _volume(trust / KNOWN, SYSTEM_HOSTS)
        yield from (_volume(trust / KNOWN, file) for file in dict.fromkeys(_named(config, SSH)) if file[0] == "/")


def files(config: Config) -> tuple[str, ...]:
    """Root files of clients that are covered: with Weir's authorities alone, for nobody else is spoken to there."""
    return tuple(dict.fromkeys(file for file in _named(config) if file.startswith("/") and file != SYSTEM_BUNDLE))


def notes(config: Config) -> tuple[str, ...]:
    """What cannot be known here."""
    own = config.run / "trust" / "weir.pem"
    hosts = (USER_HOSTS, *_named(config, SSH)) if any(one.protocol == SSH for one in config.targets) else ()
    wanted = dict.fromkeys(_named(config), own) | dict.fromkeys(hosts, config.run / "trust" / KNOWN)
    return (*(f"{file}: where the container's home is, is not known here; bind {source} over it"
              for file, source in wanted.items() if file.startswith("~")),
            *(f"kubeconfigs for {one.name} are the image's own, and do not know Weir: bind what `weir kubeconfig "
              f"{one.name}` prints over them" for one in config.targets if one.protocol == KUBERNETES))


def _named(config: Config, protocol: str = "") -> Iterable[str]:
    """Of targets that are known by a certificate, or of those of a protocol."""
    return (file for target in config.targets for file in target.trust
            if (target.protocol == protocol if protocol else target.certified and not _is_kubeconfig(target, file)))


def _is_kubeconfig(target: TargetEntry, file: str) -> bool:
    """As far as its name says: what is in the image is not known here."""
    return target.protocol == KUBERNETES and not file.endswith((".crt", ".pem"))


def _volume(source: Path, target: str) -> str:
    return f"--volume={source}:{target}:ro"
