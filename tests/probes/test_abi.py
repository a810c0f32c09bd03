"""Python and C see the same bytes: gcc says where each field is."""
from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

from probes import abi
from probes.loader import SOURCES

HEADER = SOURCES / "abi.h"
TYPES = "#include <stdio.h>\n#include <stddef.h>\n#include <stdint.h>\n" \
        "typedef uint64_t u64; typedef uint32_t u32; typedef uint16_t u16; typedef uint8_t u8;\n"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """"struct" -> size, "struct.field" -> offset, and the numbers that are defined."""
    prints = []
    for name, kind in abi.STRUCTS.items():
        prints.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        for field, *_ in kind._fields_:
            prints.append(f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));')
    for name in re.findall(r"#define (\w+)", HEADER.read_text()):
        prints.append(f'printf("{name} %lld\\n", (long long){name});')
    source = tmp_path_factory.mktemp("abi") / "layout.c"
    source.write_text(f'{TYPES}#include "{HEADER}"\nint main(void) {{ {" ".join(prints)} }}\n')
    program = source.with_suffix("")
    subprocess.run(["gcc", "-o", program, source], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in (line.split() for line in said.splitlines())}


@pytest.mark.parametrize("name", abi.STRUCTS)
def test_layout(name: str, layout: dict[str, int]) -> None:
    kind = abi.STRUCTS[name]
    assert ctypes.sizeof(kind) == layout[name]
    for field in kind._fields_:
        assert getattr(kind, field[0]).offset == layout[f"{name}.{field[0]}"]


@pytest.mark.parametrize("name", abi.STRUCTS)
def test_no_hidden_padding(name: str) -> None:
    kind = abi.STRUCTS[name]
    assert sum(getattr(kind, field[0]).size for field in kind._fields_) == ctypes.sizeof(kind)


@pytest.mark.parametrize("name", abi.STRUCTS)
def test_every_field_of_the_header_is_mirrored(name: str) -> None:
    body = re.search(rf"struct {name} {{(.*?)}};", HEADER.read_text(), re.DOTALL)
    assert body is not None
    assert re.findall(r"\bu\d+\s+(\w+)", body[1]) == [field[0] for field in abi.STRUCTS[name]._fields_]


def test_numbers(layout: dict[str, int]) -> None:
    numbers = {name: value for name, value in layout.items() if name.isupper()}
    assert numbers == {name: getattr(abi, name) for name in numbers}
    assert len(numbers) == 18


def test_addresses() -> None:
    assert abi.packed("192.0.2.1") == bytes(10) + b"\xff\xff\xc0\x00\x02\x01" == abi.packed(b"\xc0\x00\x02\x01")
    assert abi.unpacked(abi.packed("192.0.2.1")) == "192.0.2.1"
    assert abi.unpacked(abi.packed("2001:db8::1")) == "2001:db8::1"
    with pytest.raises(ValueError):
        abi.packed(b"\0" * 5)


def test_settings_refuse_what_is_no_port() -> None:
    for port in (0, -1, 65536):
        with pytest.raises(ValueError):
            abi.render_settings(1, 2, 1, port, None)
        with pytest.raises(ValueError):
            abi.render_settings(1, 2, 1, 1, ("192.0.2.1", port))
    assert abi.parse(abi.Settings, abi.render_settings(1, 2, 1, 1, None)).resolver_port == 0


def test_merged_headers(tmp_path: Path) -> None:
    from probes.links import PlatformError
    from probes.loader import merged_headers

    packages, cache = tmp_path / "src", tmp_path / "cache"
    for path in ("linux-headers-1-common/include/linux/kconfig.h", "linux-headers-1-amd64/include/generated/autoconf.h",
                 "linux-headers-1-amd64/Makefile", "linux-headers-1-common/Makefile"):
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        (packages / path).write_text(path)
    tree = merged_headers(cache, packages)
    assert (tree / "include/linux/kconfig.h").exists()
    assert (tree / "Makefile").read_text() == "linux-headers-1-amd64/Makefile"
    assert merged_headers(cache, packages) == tree
    (tree / "include/linux").unlink()
    assert merged_headers(cache, packages) == tree
    assert (tree / "include/linux/kconfig.h").exists()
    assert [one.name for one in cache.iterdir()] == [tree.name]
    with pytest.raises(PlatformError, match="apt-get install"):
        merged_headers(cache, tmp_path / "nothing")


def test_headers_that_are_whole(tmp_path: Path) -> None:
    """Ubuntu's: the tree of a flavour has links into the one of all flavours, which alone is not enough."""
    from probes.links import PlatformError
    from probes.loader import merged_headers

    every, flavour = tmp_path / "src/linux-headers-6.8.0-90", tmp_path / "src/linux-headers-6.8.0-90-generic"
    (every / "include/linux").mkdir(parents=True)
    (every / "include/linux/kconfig.h").touch()
    with pytest.raises(PlatformError, match="linux-headers-generic"):
        merged_headers(tmp_path / "cache", tmp_path / "src")
    (flavour / "include/generated").mkdir(parents=True)
    (flavour / "include/generated/autoconf.h").touch()
    (flavour / "include/linux").symlink_to("../../linux-headers-6.8.0-90/include/linux")
    assert merged_headers(tmp_path / "cache", tmp_path / "src") == flavour
    assert not (tmp_path / "cache").exists()
