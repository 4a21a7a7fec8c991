"""Seeded random words and orders that are the same on every platform and with every NumPy.

NumPy keeps the raw output of its bit generators and of `SeedSequence` fixed for good, but not the
streams of `Generator`'s methods (`permutation`, `standard_normal`, …). Splits and embedded images
must never change under a user's feet, so everything here is built on the raw 64-bit words, with
integer arithmetic only.
"""

import numpy as np


def random_words(count: int, *key: int) -> np.ndarray:
    """Returns `count` raw 64-bit words of PCG64 seeded by the integers of `key`."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


def random_order(count: int, *key: int) -> np.ndarray:
    """Returns a uniformly random permutation of `range(count)`, shape `(count,)`, int64."""
    return np.argsort(random_words(count, *key), kind="stable")


def stratified_counts(counts: np.ndarray, total: int) -> np.ndarray:
    """Splits `total` over classes in proportion to `counts`, by largest remainders.

    Ties go to the class that comes first. The result sums to `total` and never exceeds `counts`
    where `total <= counts.sum()`.
    """
    counts = np.asarray(counts, dtype=np.int64)
    share, remainder = np.divmod(counts * total, counts.sum())
    missing = total - share.sum()
    share[np.argsort(-remainder, kind="stable")[:missing]] += 1
    return share


def stratified_choice(labels: np.ndarray, per_class: np.ndarray, *key: int) -> np.ndarray:
    """Draws `per_class[c]` indices of each class `c`, sorted, shape `(per_class.sum(),)`."""
    order = random_order(len(labels), *key)
    shuffled = labels[order]
    chosen = [order[shuffled == index][:count] for index, count in enumerate(per_class)]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
