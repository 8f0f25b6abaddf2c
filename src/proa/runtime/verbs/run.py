"""run: create a container, start it, and unless detached stay with it and delete it."""

from __future__ import annotations

import os

from proa.runtime.verbs import foreground
from proa.runtime.verbs.create import OPTIONS as CREATE_OPTIONS
from proa.runtime.verbs.create import create, one_id
from proa.runtime.verbs.delete import delete
from proa.runtime.verbs.options import FLAG, Options, Settings
from proa.runtime.verbs.start import start

__all__ = ["OPTIONS", "run"]

OPTIONS = {**CREATE_OPTIONS, "--detach": FLAG, "-d": "--detach", "--keep": FLAG, "--no-subreaper": FLAG}


def run(settings: Settings, options: Options, words: list[str]) -> int:
    """The verb: returns the program's exit status, or 0 with --detach."""
    container_id = one_id(words)
    detach = options.flag("detach")
    process = create(settings, options, container_id, console_wanted=not detach or options.given("console-socket"))
    if not detach:
        foreground.hold_signals()
    try:
        start(settings, container_id)
    except BaseException:
        delete(settings, container_id, force=True)
        raise
    if options.given("console-socket"):
        process = process._replace(console_fd=None)  # it is the caller's
    if detach:
        os.close(process.pidfd)
        return 0
    try:
        return foreground.follow(process)
    finally:
        if not options.flag("keep"):
            delete(settings, container_id, force=True)
