"""A program: the command line, typed again and again, each time in a process that forks from one with all imports.

    python attempts.py MOMENTS COMMAND...

`MOMENTS` is a JSON list. One attempt a moment is killed, with its workers: a text is a pattern, and the moment is when
a file of that name appears; a number is a time in seconds. The last attempt is left to end.
"""

import glob
import importlib
import json
import os
import signal
import sys
import time

SLOW_TO_IMPORT = ("torch._dynamo", "synth_pipeline.stages")


def begun():
    """A process, in a group of its own, that runs the command."""
    from synth_pipeline import cli

    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        cli.main()
    os.setpgid(process, process)  # here as well: whichever of the two is first
    return process


def killed(process, moment):
    """Kill it and its workers when the moment has come; False when it ended before."""
    began = time.monotonic()
    while not (glob.glob(moment) if isinstance(moment, str) else time.monotonic() - began > moment):
        if os.waitpid(process, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.005)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


if __name__ == "__main__":
    from synth_pipeline import cli

    for name in SLOW_TO_IMPORT:
        importlib.import_module(name)
    moments = json.loads(sys.argv.pop(1))
    print(sum([killed(begun(), moment) for moment in moments]), "attempts were killed", flush=True)
    cli.main()
