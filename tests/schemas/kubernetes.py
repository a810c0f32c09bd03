"""Builds enforcer/protocols/kubernetes/bodies/kubernetes.binpb and kubernetes.json from Kubernetes' own modules in the
Go module cache: `python tests/schemas/kubernetes.py v0.34.4`.

The first is a FileDescriptorSet of its generated.proto files.  What the JSON form has otherwise is taken from the Go
types' tags and said in `json_name`: names, and "*" for what is part of the object around it.  The second: which
packages have the kinds of an apiVersion, and which messages stand for a list or a map alone.
"""
from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

MODULES = ("api", "apimachinery", "apiextensions-apiserver", "kube-aggregator", "metrics")
LEFT_OUT = "testapigroup"
OUT = Path(__file__).parents[2] / "enforcer/protocols/kubernetes/bodies"
STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
ALONE = re.compile(r"^type (\w+) (?:\[\]|map\[)", re.MULTILINE)
FIELD = re.compile(r"^\s*(\w+)?.*`(.*)`", re.MULTILINE)
GROUP = re.compile(r'GroupName\s*=\s*"([^"]*)"')


def main(version: str) -> None:
    cache = subprocess.run(["go", "env", "GOMODCACHE"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "k8s.io").mkdir()
        for name in MODULES:
            (root / "k8s.io" / name).symlink_to(Path(cache, "k8s.io", f"{name}@{version}"))
        files = sorted(
            str(found.relative_to(root)) for name in MODULES
            for found in (root / "k8s.io" / name / ".").rglob("generated.proto")
            if LEFT_OUT not in str(found))
        build(root, files)


def build(root: Path, files: list[str]) -> None:
    made = root / "all.binpb"
    include = str(Path(grpc_tools.__file__).parent / "_proto")
    if protoc.main(["protoc", f"-I{root}", f"-I{include}", f"--descriptor_set_out={made}", *files]):
        raise SystemExit("protoc failed")
    found = FileDescriptorSet.FromString(made.read_bytes())
    groups: dict[str, list[str]] = {}
    alone: list[str] = []
    for file in found.file:
        place = (root / file.name).parent
        source = "\n".join(one.read_text() for one in sorted(place.glob("*.go")) if not one.name.endswith("_test.go"))
        tags = {(struct, name): tag for struct, name, tag in read_tags(source)}
        for message in file.message_type:
            for field in message.field:
                field.json_name = tags.get((message.name, field.name), field.name)
        lists = set(ALONE.findall(source))
        alone += [f"{file.package}.{one.name}" for one in file.message_type if one.name in lists]
        if (named := GROUP.search(source)) and re.fullmatch(r"v\d\w*", place.name):
            groups.setdefault(f"{named[1]}/{place.name}".lstrip("/"), []).append(file.package)
        file.options.Clear()
    data = found.SerializeToString(deterministic=True)
    (OUT / "kubernetes.binpb").write_bytes(data)
    (OUT / "kubernetes.json").write_text(json.dumps({"groups": groups, "alone": sorted(alone)}, indent=1) + "\n")
    print(len(files), "files", len(data), "bytes")


def read_tags(source: str) -> list[tuple[str, str, str]]:
    """(struct, name in protobuf, name in JSON or "*")."""
    found = []
    for struct, body in STRUCT.findall(source):
        for name, tag in FIELD.findall(body):
            said = re.search(r'protobuf:"([^"]*)"', tag)
            form = re.search(r'json:"([^"]*)"', tag)
            if said is None or form is None:
                continue
            given = re.search(r"name=(\w+)", said[1])
            field = given[1] if given else name[0].lower() + name[1:]
            shown, _, more = form[1].partition(",")
            found.append((struct, field, "*" if "inline" in more and not shown else shown or field))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
