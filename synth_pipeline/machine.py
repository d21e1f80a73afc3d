"""What this process may use of the machine."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_threads() -> int:
    """Threads that this process should compute with: its cores, or fewer where `OMP_NUM_THREADS` says so.

    Worker processes are told so: they share the cores.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores(), int(limit))) if limit.isdecimal() else cores()
