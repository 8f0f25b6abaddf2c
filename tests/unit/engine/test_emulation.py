from __future__ import annotations

from pathlib import Path

import pytest

from proa.engine import emulation
from proa.oci import Platform, host_platform, parse_platform

# As Debian's qemu-user-static registers them.
ARM64 = (
    "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n"
    "magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
)
S390X = (
    "enabled\ninterpreter /usr/bin/qemu-s390x-static\nflags: OCF\noffset 0\n"
    "magic 7f454c4602020100000000000000000000020016\nmask ffffffffffffff00fffffffffffffffffffeffff\n"
)


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "register").write_text("")
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "qemu-aarch64").write_text(ARM64)
    (tmp_path / "python3").write_text("enabled\ninterpreter /usr/bin/python3\nflags: F\noffset 0\nmagic a70d0d0a\n")
    monkeypatch.setattr(emulation, "BINFMT", tmp_path)
    return tmp_path


def test_the_interpreter_is_found_by_the_processor_it_is_for(registered: Path) -> None:
    assert emulation.emulator("arm64", registered) == "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"
    for other in ("amd64", "arm", "riscv64", "s390x", "unheard-of"):
        assert emulation.emulator(other, registered) is None
    (registered / "qemu-s390x").write_text(S390X)
    assert emulation.emulator("s390x", registered) == "/usr/bin/qemu-s390x-static"


@pytest.mark.parametrize(
    "text",
    [
        ARM64.replace("enabled", "disabled"),
        ARM64.replace("POCF", "OC"),
        ARM64.replace("magic 7f454c46", "magic 7f454c"),
        ARM64.replace("offset 0", "offset 900"),
        ARM64.replace("magic", "extension"),
        "",
        "\0",
    ],
)
def test_what_does_not_count(registered: Path, text: str) -> None:
    (registered / "qemu-aarch64").write_text(text)
    assert emulation.emulator("arm64", registered) is None


def test_switched_off_or_not_there(registered: Path) -> None:
    (registered / "status").write_text("disabled\n")
    assert emulation.emulator("arm64", registered) is None
    assert emulation.emulator("arm64", registered / "missing") is None


def test_what_a_user_is_told() -> None:
    assert emulation.platform_warnings(host_platform(), asked=False) == []
    assert emulation.platform_warnings(Platform(os="linux"), asked=False) == []
    said = emulation.platform_warnings(parse_platform("linux/mips"), asked=False)
    assert len(said) == 2
    assert "does not match the detected host platform" in said[0]
    assert "exec format error" in said[1]
    assert len(emulation.platform_warnings(parse_platform("linux/mips"), asked=True)) == 1
