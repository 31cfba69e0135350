"""What a worker may use, by limits of the kernel that it cannot raise again.

Memory counts from what the zygote already had, which is shared: `memory_bytes` is what the extension may add. It is
address space, so memory that is reserved counts as well; `MALLOC_ARENA_MAX` keeps the C library from reserving 64 MiB
for each thread. Source: getrlimit(2), the kernel's Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
import resource

from magmobo.extensions.sandbox import plainfiles

OPEN_FILES, THREADS = 64, 64
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STACK_BYTES = 8 * 1_048_576
_SIGNALS = 64


def apply(memory_bytes: int, file_bytes: int, *, counts_processes: bool) -> None:
    """Limit this process. `counts_processes`: its uid, or its user namespace, is its own, so that a limit on processes
    is one on its threads. Needs /proc. Raises: OSError, ValueError.
    """
    mapped_bytes = int(plainfiles.read("/proc/self/statm").split()[0]) * _PAGE_BYTES
    # Whoever runs out of memory first is the worker, not the node beside it.
    plainfiles.write("/proc/self/oom_score_adj", "1000")
    limits = {
        resource.RLIMIT_AS: mapped_bytes + memory_bytes,
        # Not 0: a handler of dumps is given one of any size, unless the limit is exactly 1.
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: _SIGNALS,
        resource.RLIMIT_STACK: _STACK_BYTES,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    if counts_processes:
        limits[resource.RLIMIT_NPROC] = THREADS
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
