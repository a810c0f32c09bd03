"""Offsets of members of the running kernel's structs, from its own BTF: right whatever headers were compiled with.

By libbpf's btf.h (1.1); layouts of `struct btf_type` and `struct btf_member` from linux/btf.h.
"""
from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Final

from probes.links import PlatformError

_STRUCT: Final = 4                    # BTF_KIND_STRUCT
_KIND_FLAG: Final = 1 << 31           # of info: offsets hold a bit field's size in their upper byte

_lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
_lib.btf__load_vmlinux_btf.restype = ctypes.c_void_p
_lib.btf__find_by_name_kind.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
_lib.btf__type_by_id.argtypes, _lib.btf__type_by_id.restype = (ctypes.c_void_p, ctypes.c_uint32), ctypes.c_void_p
_lib.btf__name_by_offset.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
_lib.btf__name_by_offset.restype = ctypes.c_char_p
_lib.btf__free.argtypes, _lib.btf__free.restype = (ctypes.c_void_p,), None


def offsets(wanted: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, int]:
    """`wanted`: structs, each with the names that a member had over time.  "struct_member" by its first name -> bytes
    from the struct's beginning.  Raises PlatformError where there is none, or it is a bit field."""
    btf = _lib.btf__load_vmlinux_btf()
    if not btf:
        raise PlatformError("the kernel does not describe its types (/sys/kernel/btf/vmlinux)")
    try:
        return {f"{struct}_{names[0]}": _offset(btf, struct, names) for struct, names in wanted}
    finally:
        _lib.btf__free(btf)


def _offset(btf: int, struct: str, names: tuple[str, ...]) -> int:
    number = _lib.btf__find_by_name_kind(btf, struct.encode(), _STRUCT)
    if number < 0:
        raise PlatformError(f"this kernel has no struct {struct}")
    place = _lib.btf__type_by_id(btf, number)
    _, info, _ = (ctypes.c_uint32 * 3).from_address(place)
    for member in range(info & 0xFFFF):
        name, _, bits = (ctypes.c_uint32 * 3).from_address(place + 12 + 12 * member)
        if _lib.btf__name_by_offset(btf, name).decode() in names:
            size, bits = (bits >> 24, bits & 0xFFFFFF) if info & _KIND_FLAG else (0, bits)
            if size or bits % 8:
                break
            return int(bits // 8)
    raise PlatformError(f"this kernel's struct {struct} has no {names[0]}")
