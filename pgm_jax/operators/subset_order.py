"""The order in which ordered subsets are visited, so that neighbours in time lie far apart in angle."""

import numpy as np


def subset_order(count: int, order: str = "golden") -> np.ndarray:
    """Orders the subsets 0, 1, ..., count - 1 of a scan for one pass over them.

    "golden" ranks the multiples of the golden ratio modulo 1, so that every stretch of the order covers the scan
    evenly. "herman_meyer" reverses the digits of the index in the mixed radix of the prime factors of count,
    the largest last, and is the sequential order where count is prime. "sequential" is 0, 1, 2, ...

    Sources: T. Kohler, A projection access scheme for iterative reconstruction based on the golden section
    (2004); G. T. Herman and L. B. Meyer, Algebraic reconstruction techniques can be made computationally
    efficient, IEEE TMI 12 (1993).

    Args:
        count: number of subsets.
        order: "golden", "herman_meyer" or "sequential".

    Returns:
        int32 host array (count,), a permutation that starts with 0.

    Raises:
        ValueError: for a count below 1 or an unknown order.
    """
    if count < 1:
        raise ValueError(f"the number of subsets must be at least 1, got {count}")
    index = np.arange(count)
    if order == "sequential":
        return index.astype(np.int32)
    if order == "golden":
        positions = np.mod(index * (np.sqrt(5) - 1) / 2, 1.0)
        return np.argsort(np.argsort(positions)).astype(np.int32)
    if order == "herman_meyer":
        # Reversing the digits of an index is transposing an array with one axis a digit.
        return index.reshape(_prime_factors(count)).T.ravel().astype(np.int32)
    raise ValueError(f'order must be "golden", "herman_meyer" or "sequential", got {order!r}')


def _prime_factors(count):
    factors, prime = [], 2
    while count > 1:
        while count % prime == 0:
            factors.append(prime)
            count //= prime
        prime += 1
    return factors
