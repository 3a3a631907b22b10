"""Counter-based random draws: every number is a pure function of (seed, epoch, row, column).

No state is kept and no order matters, so any epoch's draw of any image can be made again, alone or in a
batch.

The generator is Philox-4x64-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: ten
rounds of multiply-and-xor turn a 256-bit counter and a 128-bit key into four 64-bit words. Here the counter
is (row, epoch, block of four columns, 0) and the key is (seed, 0). Equal, bit for bit, to
``numpy.random.Philox``.
"""

import numpy as np
import numpy.typing as npt

from dermdistill.errors import ConfigError

WORDS = 4
ROUNDS = 10
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
LOW_32 = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)

Words = npt.NDArray[np.uint64]


def _multiply(factors: Words, values: Words) -> tuple[Words, Words]:
    """High and low 64 bits of the 128-bit products, by 32-bit halves."""
    factors_low, factors_high = factors & LOW_32, factors >> HALF
    low, high = values & LOW_32, values >> HALF
    middle = high * factors_low + ((low * factors_low) >> HALF)
    other = low * factors_high + (middle & LOW_32)
    return high * factors_high + (middle >> HALF) + (other >> HALF), values * factors


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random 64-bit words for each counter.

    Args:
        counter: uint64 [4, N], least significant word first.
        key: two words in [0, 2^64).

    Returns:
        uint64 [4, N].
    """
    factors = np.array(MULTIPLIERS, dtype=np.uint64)[:, None]
    # Words 0 and 2 are multiplied, words 1 and 3 only mixed in: each pair goes as one array, for speed.
    multiplied, mixed = counter[0::2], counter[1::2]
    for turn in range(ROUNDS):
        keys = [(word + turn * step) % 2**64 for word, step in zip(key, KEY_STEPS, strict=True)]
        high, low = _multiply(factors, multiplied)
        multiplied = high[::-1] ^ mixed ^ np.array(keys, dtype=np.uint64)[:, None]
        mixed = low[::-1]
    return np.stack([multiplied[0], mixed[0], multiplied[1], mixed[1]])


def uniforms(seed: int, epoch: int, rows: npt.NDArray[np.int64], columns: int) -> npt.NDArray[np.float64]:
    """Uniform draws in [0, 1), multiples of 2^-53; one line of them an image.

    More columns leave the earlier ones as they were.

    Args:
        seed: of the run, in [0, 2^64).
        epoch: in [0, 2^64).
        rows: int64 [B], not negative: rows of the image store.
        columns: how many draws an image needs.

    Returns:
        float64 [B, columns].

    Raises:
        ConfigError: seed, epoch or a row is negative or beyond 64 bits.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < 2**64:
            raise ConfigError(f"{name} is {value}", rule="a whole number from 0 to 2^64 - 1")
    if rows.size and int(rows.min()) < 0:
        raise ConfigError(f"row {int(rows.min())} is negative", rule="rows of the image store count from 0")
    blocks = -(-columns // WORDS)
    counter = np.zeros((WORDS, len(rows), blocks), dtype=np.uint64)
    counter[0] = rows.astype(np.uint64)[:, None]
    counter[1] = epoch
    counter[2] = np.arange(blocks, dtype=np.uint64)
    words = philox(counter.reshape(WORDS, len(rows) * blocks), (seed, 0)).T
    words = words.reshape(len(rows), blocks * WORDS)[:, :columns]
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
