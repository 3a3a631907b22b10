"""Keep the memory that a training step frees, instead of giving it back to the system and asking for it again.

On a CPU each step allocates and frees the same large activations. glibc gives large blocks back at once, and
the next step pays for fresh, zeroed pages: thousands of faults a step. ``benchmarks/training_step.py`` measures it.
"""

import ctypes
import platform

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST_INT = 2**31 - 1
TOP_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, from now on and for the whole process; values do not change.

    Returns:
        whether the library took it; False where it is not glibc, and nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST_INT), (M_TOP_PAD, TOP_PAD))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
