"""What systemd itself says of units and of the drop-in, by a `systemd --user` of the test's own (privatesystemd.py)."""
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pytest
from privatesystemd import PrivateSystemd, missing, private_systemd

from agent.layout import cgroup_root
from agent.unit import systemd
from agent.unit.adoptable import PROPERTIES, Unit, object_path
from agent.unit.dropin import FAMILIES, FILE, Plan, render_dropin, undone
from agent.unit.objections import made_by_root, read_by_root

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

NAME = "crew.service"
PLAN = Plan(
    unit=NAME, workload="crew", slice="weir.slice", root="/var/lib/weir/units/crew/root", home="/home/crew",
    writable=("/home/crew", "/srv/da ta"), readable=("/opt/crew",),
    files=(("/var/lib/weir/units/crew/resolv.conf", "/etc/resolv.conf"),),
    hidden=("/etc/weir", "/run/weir", "/var/lib/weir"), environment=(("ODD", 'a b%c"d\\e$f'),), families=FAMILIES,
    notifies="main")
# What no property of PROPERTIES is: left to the unit, for it gives it nothing (docs/decisions/0018-adopt.md), or what
# runs and not what is configured.
LEFT = frozenset("""
Type ExitType Restart PIDFile RestartUSec TimeoutStartUSec TimeoutStopUSec TimeoutAbortUSec TimeoutStartFailureMode
TimeoutStopFailureMode RuntimeMaxUSec RuntimeRandomizedExtraUSec WatchdogUSec RemainAfterExit GuessMainPID
RestartPreventExitStatus RestartForceExitStatus SuccessExitStatus OOMPolicy KillSignal RestartKillSignal SendSIGHUP
WatchdogSignal NonBlocking SameProcessGroup IgnoreSIGPIPE TimeoutCleanUSec

WatchdogTimestamp WatchdogTimestampMonotonic MainPID ControlPID NFileDescriptorStore StatusText StatusErrno Result
ReloadResult CleanResult UID GID NRestarts ExecMainStartTimestamp ExecMainStartTimestampMonotonic ExecMainExitTimestamp
ExecMainExitTimestampMonotonic ExecMainPID ExecMainCode ExecMainStatus ControlGroupId MemoryCurrent MemoryAvailable
CPUUsageNSec EffectiveCPUs EffectiveMemoryNodes TasksCurrent IPIngressBytes IPIngressPackets IPEgressBytes
IPEgressPackets IOReadBytes IOReadOperations IOWriteBytes IOWriteOperations
ExecCondition ExecStartPre ExecStart ExecStartPost ExecReload ExecStop ExecStopPost

DelegateControllers CPUAccounting CPUWeight StartupCPUWeight CPUShares StartupCPUShares CPUQuotaPerSecUSec
CPUQuotaPeriodUSec AllowedCPUs StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes IOAccounting IOWeight
StartupIOWeight IODeviceWeight IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax
IODeviceLatencyTargetUSec BlockIOAccounting BlockIOWeight StartupBlockIOWeight BlockIODeviceWeight BlockIOReadBandwidth
BlockIOWriteBandwidth MemoryAccounting DefaultMemoryLow DefaultMemoryMin MemoryMin MemoryLow MemoryHigh MemoryMax
MemorySwapMax MemoryLimit TasksAccounting TasksMax IPAccounting IPAddressAllow IPAddressDeny DisableControllers
ManagedOOMSwap ManagedOOMMemoryPressure ManagedOOMMemoryPressureLimit ManagedOOMPreference SocketBindAllow
SocketBindDeny RestrictNetworkInterfaces RestrictFileSystems

PassEnvironment UnsetEnvironment UMask OOMScoreAdjust CoredumpFilter Nice IOSchedulingClass IOSchedulingPriority
CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUAffinity CPUAffinityFromNUMA NUMAPolicy NUMAMask
TimerSlackNSec RemoveIPC Personality SELinuxContext AppArmorProfile SmackProcessLabel SystemCallErrorNumber
SystemCallLog MemoryDenyWriteExecute RestrictRealtime RestrictSUIDSGID ReadOnlyPaths ExecPaths NoExecPaths
ExecSearchPath MountFlags PrivateMounts UtmpMode TTYRows TTYColumns SyslogPriority SyslogIdentifier SyslogLevelPrefix
SyslogLevel SyslogFacility LogLevelMax LogRateLimitIntervalUSec LogRateLimitBurst LogExtraFields SetCredential
SetCredentialEncrypted StandardInputData StandardInputFileDescriptorName StandardOutputFileDescriptorName
StandardErrorFileDescriptorName RootImageOptions RootHash RootHashPath RootHashSignature RootHashSignaturePath
RootVerity RuntimeDirectoryPreserve RuntimeDirectoryMode StateDirectoryMode CacheDirectoryMode LogsDirectoryMode
ConfigurationDirectoryMode

Names Following Requisite Wants BindsTo PartOf Upholds RequiredBy RequisiteOf WantedBy BoundBy UpheldBy ConsistsOf
Conflicts ConflictedBy Before After OnSuccess OnSuccessOf OnFailure OnFailureOf Triggers PropagatesReloadTo
ReloadPropagatedFrom PropagatesStopTo StopPropagatedFrom SliceOf RequiresMountsFor Documentation Description
AccessSELinuxContext FreezerState SubState FragmentPath SourcePath DropInPaths UnitFileState UnitFilePreset
StateChangeTimestamp StateChangeTimestampMonotonic InactiveExitTimestamp InactiveExitTimestampMonotonic
ActiveEnterTimestamp ActiveEnterTimestampMonotonic ActiveExitTimestamp ActiveExitTimestampMonotonic
InactiveEnterTimestamp InactiveEnterTimestampMonotonic CanStart CanStop CanReload CanIsolate CanClean CanFreeze Job
StopWhenUnneeded RefuseManualStart RefuseManualStop AllowIsolate DefaultDependencies OnSuccessJobMode OnFailureJobMode
IgnoreOnIsolate Markers JobTimeoutUSec JobRunningTimeoutUSec JobTimeoutAction JobTimeoutRebootArgument ConditionResult
AssertResult ConditionTimestamp ConditionTimestampMonotonic AssertTimestamp AssertTimestampMonotonic Conditions Asserts
Perpetual StartLimitIntervalUSec StartLimitBurst StartLimitAction FailureAction FailureActionExitStatus SuccessAction
SuccessActionExitStatus RebootArgument InvocationID CollectMode Refs ActivationDetails
""".split())


@pytest.fixture(scope="module")
def manager() -> Iterator[PrivateSystemd]:
    with private_systemd() as made, pytest.MonkeyPatch.context() as patched:
        patched.setattr(systemd, "BUS", (f"--address={made.address}",))
        yield made


def said(manager: PrivateSystemd, text: str, **dropins: str) -> Unit:
    """Of the unit with these lines below [Service], and drop-ins by name."""
    manager.remove(NAME)
    manager.write(NAME, f"[Service]\nExecStart=/bin/true\n{text}\n")
    for name, more in dropins.items():
        manager.write(f"{NAME}.d/{name}.conf", more)
    manager.reload()
    return systemd.show(NAME)


def test_arguments_with_line_breaks_do_not_speak(manager: PrivateSystemd) -> None:
    one = said(manager, 'PAMName=login\nExecStartPre=+/bin/sh -c "id\\nexit 0"\n'
               'ExecStartPost=/bin/true "}\\nPermissionsStartOnly=no\\nPAMName=\\nUser=crew"')
    assert [(command.property, sorted(command.flags)) for command in one.commands] == [
        ("ExecStartPre", ["privileged"]), ("ExecStart", []), ("ExecStartPost", [])]
    assert (one["PAMName"], one["User"]) == ("login", "")


@pytest.mark.parametrize("text", ["PermissionsStartOnly=yes", "PermissionsStartOnly \\\n =yes"])
def test_what_systemctl_hides(manager: PrivateSystemd, text: str) -> None:
    assert said(manager, text).yes("PermissionsStartOnly")
    assert not said(manager, text, **{"50-weir": render_dropin(PLAN)}).yes("PermissionsStartOnly")
    later = said(manager, "", **{"50-weir": render_dropin(PLAN), "60-la ter": f"[Service]\n{text}\n"})
    assert list(undone(PLAN, later)) == ["PermissionsStartOnly is yes, not no"]


def test_a_unit_that_is_not_there(manager: PrivateSystemd) -> None:
    assert systemd.show("none-of-this.service")["LoadState"] == "not-found"


def test_what_was_written_is_in_force(manager: PrivateSystemd) -> None:
    assert FILE == "50-weir.conf"
    one = said(manager, "SystemCallFilter=@system-service bpf\nDeviceAllow=/dev/kvm\nKillMode=none\n"
               "SecureBits=keep-caps\nFinalKillSignal=SIGTERM\nBindPaths=/run/dbus\nReadWritePaths=/usr\nInaccessiblePaths=/srv",
               **{"50-weir": render_dropin(PLAN)})
    assert list(undone(PLAN, one)) == []
    assert one.all("DeviceAllow") == (("char-rtc", "r"),), "ProtectClock="
    assert one.environment["ODD"] == PLAN.environment[0][1]
    none = replace(PLAN, families=())
    assert list(undone(none, said(manager, "", **{"50-weir": render_dropin(none)}))) == []


@pytest.mark.parametrize(("text", "found"), [
    ("Slice=system.slice", "Slice is system.slice, not weir.slice"),
    ("BindReadOnlyPaths=/run:/usr", "BindReadOnlyPaths has also /run:/usr"),
    ("BindPaths=/:/home/crew", "BindPaths has also /:/home/crew"),
    ("InaccessiblePaths=", "InaccessiblePaths lacks"), ("ReadWritePaths=/usr", "ReadWritePaths is /usr"),
    ("SystemCallFilter=", "SystemCallFilter lets"), ("SystemCallFilter=bpf", "SystemCallFilter lets bpf through"),
    ("RestrictAddressFamilies=", "RestrictAddressFamilies has no list"),
    ("RestrictAddressFamilies=AF_PACKET", "RestrictAddressFamilies has also AF_PACKET"),
    ("SystemCallArchitectures=x86", "SystemCallArchitectures is"),
    ("DeviceAllow=/dev/kvm", "DeviceAllow has /dev/kvm rwm"),
    ("KillMode=process", "KillMode is process"), ("SendSIGKILL=no", "SendSIGKILL is no"),
    ("CapabilityBoundingSet=CAP_NET_RAW", "CapabilityBoundingSet is 8192"),
    ("RestrictNamespaces=no", "RestrictNamespaces"),
    ("TemporaryFileSystem=/etc:rw", "TemporaryFileSystem is /etc rw"),
    ("ProtectProc=default", "ProtectProc is default"),
])
def test_what_a_later_drop_in_undoes(manager: PrivateSystemd, text: str, found: str) -> None:
    one = said(manager, "", **{"50-weir": render_dropin(PLAN), "60-later": f"[Service]\n{text}\n"})
    assert [found in wrong for wrong in undone(PLAN, one)] == [True]


def test_what_systemd_does_as_root_by_name(manager: PrivateSystemd) -> None:
    """As far as a user's manager, which has other tops, says it: directories, links, files."""
    one = said(manager, "DynamicUser=yes\nStateDirectory=crew:short\nEnvironmentFile=-/srv/a b\n"
               "EnvironmentFile=/etc/x\nLoadCredential=one:/srv/one\nLoadCredential=two:name\nLoadCredentialEncrypted=three:/srv/three\n"
               "StandardOutput=append:/srv/log\nStandardInput=file:/srv/in\nStandardError=fd:x")
    assert list(read_by_root(one)) == [
        ("EnvironmentFile", "/srv/a b"), ("EnvironmentFile", "/etc/x"), ("LoadCredential", "/srv/one"),
        ("LoadCredentialEncrypted", "/srv/three")]
    assert list(made_by_root(one)) == [("StateDirectory", path) for path in (
        "/var/lib/crew", "/var/lib/short", "/var/lib/private/crew")]
    assert [one[name] for name in ("StandardInput", "StandardOutput", "StandardError")] == ["file", "append", "fd"]
    assert (one["User"], one["Group"]) == ("crew", "crew")


def test_sockets(manager: PrivateSystemd) -> None:
    manager.write("crew.socket", "[Socket]\nListenStream=/run/crew.sock\nListenSpecial=/dev/null\nListenFIFO=/run/a b\n"
                  "ListenStream=127.0.0.1:80\n")
    assert set(systemd.show_socket("crew.socket")) == {
        ("Stream", "/run/crew.sock"), ("Special", "/dev/null"), ("FIFO", "/run/a b"), ("Stream", "127.0.0.1:80")}


def test_every_property_of_a_service_is_judged(manager: PrivateSystemd) -> None:
    """What a newer systemd adds is refused, written into the drop-in, or left to the unit, by somebody who has read of
    it."""
    said(manager, "")
    done = subprocess.run(
        ["busctl", *systemd.BUS, "--json=short", "call", "org.freedesktop.systemd1", object_path(NAME),
         "org.freedesktop.DBus.Properties", "GetAll", "s", ""], capture_output=True, check=True, timeout=20)
    there = set(json.loads(done.stdout)["data"][0])
    assert {name for name in there - PROPERTIES.keys() - LEFT if not name.startswith("Limit")} == set()
    assert PROPERTIES.keys() - there == set()


def test_without_a_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "BUS", ("--address=unix:path=/nowhere/bus",))
    monkeypatch.setattr(systemd, "MANAGED", tmp_path)
    with pytest.raises(systemd.SystemdError, match=r"Failed to connect to bus.*apt install dbus"):
        systemd.show(NAME)


def test_a_host_that_systemd_does_not_run_is_not_told_to_install_d_bus(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "BUS", ("--address=unix:path=/nowhere/bus",))
    monkeypatch.setattr(systemd, "MANAGED", tmp_path / "nothing")
    with pytest.raises(systemd.SystemdError, match=r"^systemd does not run this host$"):
        systemd.show(NAME)


def test_the_private_one_leaves_cgroups_of_others_alone() -> None:
    """At its end systemd removes every empty cgroup below the one that it was started in."""
    other = Path(mkdtemp(prefix="wt-other-", dir=cgroup_root()))
    try:
        with private_systemd():
            pass
        assert other.exists()
    finally:
        if other.exists():
            other.rmdir()
