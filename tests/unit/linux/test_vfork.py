"""A child that shares its parent's memory until it executes: what of it the parent must not feel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proa.linux import vfork

pytestmark = pytest.mark.skipif(not vfork.available(), reason="this interpreter is copied instead (CPython 3.14 on)")

# In a process of its own: pytest may have threads, and shall not be the one whose interpreter stands still.
PROGRAM = """
import gc, os, sys, time
from proa.linux import vfork

class Base:
    def __init__(self):
        self.made = True

class Derived(Base):
    def __init__(self):
        super().__init__()

def deep(levels):
    if levels:
        return deep(levels - 1)
    {child}

def run():
    try:
        deep(50)
    finally:
        os._exit(99)

def start():
    return vfork.vfork(0, 17, run)

{body}
"""
AHEAD = f"import sys; sys.path.insert(0, {str(Path(vfork.__file__).parents[2])!r})\n"


def run(child: str, body: str) -> str:
    program = PROGRAM.format(child=child, body=body)
    done = subprocess.run([sys.executable, "-c", AHEAD + program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_parent_goes_on_as_after_a_call() -> None:
    body = """
for number in range(200):
    try:
        raise KeyError(number)
    except KeyError as error:
        pid, pidfd = start()
        assert sys.exc_info()[1] is error
    assert os.waitpid(pid, 0)[1] == 0
    os.close(pidfd)
    assert sys.exc_info() == (None, None, None)
    assert sys._getframe().f_code.co_name == "<module>"
    assert Derived().made
    assert eval("number") == number
    gc.collect()
def levels(n):
    return 0 if not n else 1 + levels(n - 1)
assert levels(sys.getrecursionlimit() - 30) == sys.getrecursionlimit() - 30
print("done")
"""
    assert run("os.execv('/bin/true', ['true'])", body) == "done\n"


def test_it_runs_the_program_with_its_own_descriptors_and_directory() -> None:
    child = (
        "os.chdir('/usr'); os.umask(0o27); os.dup2(w, 1); os.close(w); os.execv('/bin/sh', ['sh', '-c', 'pwd; umask'])"
    )
    body = """
r, w = os.pipe()
here, mask = os.getcwd(), os.umask(0o22)
pid, pidfd = start()
os.close(w)
assert (os.getcwd(), os.umask(mask)) == (here, 0o22)
print(open(r).read().split())
assert os.waitpid(pid, 0)[1] == 0
"""
    assert run(child, body) == "['/usr', '0027']\n"


def test_an_error_in_the_child_is_the_childs() -> None:
    body = """
for _ in range(20):
    pid, pidfd = start()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 99
    os.close(pidfd)
print(len(seen), sys.exc_info()[0])
"""
    child = """
    seen.append(os.getpid())
    os.execv('/no/such/program', ['x'])"""
    assert run(child.strip(), "seen = []\n" + body) == "20 None\n"


def test_what_it_wrote_is_there_and_the_parent_stood_still() -> None:
    body = """
began = time.monotonic()
seen = []
pid, pidfd = start()
assert time.monotonic() - began >= 0.2
print(seen)
assert os.waitpid(pid, 0)[1] == 0
"""
    assert run("seen.append('written'); time.sleep(0.2); os.execv('/bin/true', ['true'])", body) == "['written']\n"


OVERFLOW = "ctypes.memset(vfork._stack_top - vfork.STACK_BYTES, 1, 1)"


@pytest.mark.parametrize("last", ["signal.raise_signal(9)", OVERFLOW])
def test_a_child_that_is_killed_does_not_leave_the_parent_waiting(last: str) -> None:
    """In the middle of a call that gives up the interpreter's lock the parent ends with it."""
    program = PROGRAM.format(child="import ctypes, signal; " + last, body="start()\nprint('went on')")
    done = subprocess.run([sys.executable, "-c", AHEAD + program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) in ((0, "went on\n"), (-11, ""))
