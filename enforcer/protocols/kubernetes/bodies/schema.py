"""The messages that Kubernetes knows, by apiVersion and kind."""
from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

META: Final = "k8s.io.apimachinery.pkg.apis.meta.v1"
RUNTIME: Final = "k8s.io.apimachinery.pkg.runtime"
INLINE: Final = "*"                   # json_name of what is part of the object around it


class _Kinds(msgspec.Struct, frozen=True):
    groups: dict[str, list[str]]      # apiVersion -> packages
    alone: frozenset[str]             # messages that stand for a list alone


@cache
def _kinds() -> _Kinds:
    return msgspec.json.decode(files(__package__).joinpath("kubernetes.json").read_bytes(), type=_Kinds)


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    read = FileDescriptorSet.FromString(files(__package__).joinpath("kubernetes.binpb").read_bytes())
    for file in read.file:            # in the order of their imports: protoc's
        pool.Add(file)
    return pool


def message_class(name: str) -> type[Message]:
    """KeyError where there is none of this full name."""
    return GetMessageClass(_pool().FindMessageTypeByName(name))


@lru_cache(maxsize=1024)
def find_message(api_version: str, kind: str) -> type[Message] | None:
    for package in (*_kinds().groups.get(api_version, ()), META):
        try:
            return message_class(f"{package}.{kind}")
        except KeyError:
            continue
    return None


def stands_alone(name: str) -> bool:
    """A message that is a list in JSON: its `items`."""
    return name in _kinds().alone


def is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)
