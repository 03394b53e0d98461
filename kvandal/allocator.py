"""What the C library's allocator keeps of memory that was freed, in processes that hold large blocks for a moment."""

import ctypes
import os

# malloc.h of glibc. Both are off by default, or move: every thread may get a heap of its own, and once a block of some
# megabytes was freed, blocks of that size come from a heap, where one that stays keeps all below it resident.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
_LARGE_BYTES = 64 << 10  # of the size of a frame: a block of its own, which goes back when it is freed


def give_freed_memory_back() -> None:
    """Have freed memory go back to the system at once. Call it before any thread starts.

    With another C library than glibc nothing changes, nor where the operator has set MALLOC_ARENA_MAX himself.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is None or "MALLOC_ARENA_MAX" in os.environ:
        return
    adjust(_ARENA_MAX, 1)
    adjust(_MMAP_THRESHOLD, _LARGE_BYTES)
