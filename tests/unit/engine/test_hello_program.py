"""The built-in image's program: an executable written by hand."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from proa.engine.hello import TEXT, hello_elf, hello_layer
from proa.errors import Unsupported
from proa.oci import host_platform


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_its_headers(architecture: str, machine: int) -> None:
    elf = hello_elf(architecture, b"text\n")
    assert elf[:7] == b"\x7fELF\x02\x01\x01"
    kind, found, _, entry, segments, sections = struct.unpack_from("<HHIQQQ", elf, 16)
    assert (kind, found, segments, sections) == (2, machine, 64, 0)
    load, flags, offset, address, _, in_file, in_memory, align = struct.unpack_from("<IIQQQQQQ", elf, 64)
    assert (load, flags, offset) == (1, 5, 0)  # loadable, readable and executable, never writable
    assert in_file == in_memory == len(elf)
    assert address <= entry < address + in_file
    assert address % align == offset % align
    assert elf.endswith(b"text\n")


@pytest.mark.parametrize("text", [TEXT, b"", b"x", b"\0\xff" * 3000])
def test_it_prints_and_exits(tmp_path: Path, text: bytes) -> None:
    program = tmp_path / "hello"
    program.write_bytes(hello_elf(host_platform().architecture, text))
    program.chmod(0o755)
    done = subprocess.run([program], capture_output=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (text, b"", 0)
    assert os.access(program, os.X_OK)


def test_the_text_is_found_on_arm64() -> None:
    elf = hello_elf("arm64", b"hi\n")
    words = struct.unpack_from("<8I", elf, 120)
    assert words[4] == words[7] == 0xD4000001  # svc #0: write and exit
    offset = (words[1] >> 5 & 0x7FFFF) << 2 | (words[1] >> 29 & 3)  # adr x1, at 124
    assert elf[124 + offset :] == b"hi\n"
    assert words[2] >> 5 & 0xFFFF == 3


def test_its_layer_is_always_the_same() -> None:
    layer = hello_layer("amd64")
    assert layer == hello_layer("amd64")
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entry = tar.getmember("hello")
        assert (entry.mode, entry.uid, entry.mtime) == (0o755, 0, 0)
        assert tar.extractfile(entry).read() == hello_elf("amd64")  # type: ignore[union-attr]


def test_other_machines() -> None:
    with pytest.raises(Unsupported):
        hello_elf("s390x")
