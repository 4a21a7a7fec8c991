"""Batch order."""

import numpy as np
import pytest

from tfconvbias import training


def epochs(batches, first, num):
    stream = batches.stream(first)
    read = [[next(stream) for _ in range(batches.num_batches)] for _ in range(num)]
    return [[np.concatenate(part) for part in zip(*rows, strict=True)] for rows in read]


def test_order_is_a_function_of_seed_and_epoch():
    x = np.arange(100)
    batches = training.ShuffledBatches(x, x, 30, seed=4)
    orders = [images for images, _ in epochs(batches, 0, 3)]
    assert all(len(set(order)) == 90 for order in orders)
    assert not np.array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(epochs(batches, 2, 1)[0][0], orders[2])
    other = training.ShuffledBatches(x, x, 30, seed=5)
    assert not np.array_equal(epochs(other, 0, 1)[0][0], orders[0])


def test_images_and_labels_stay_together():
    x = np.arange(64)
    ((images, labels),) = epochs(training.ShuffledBatches(x, 2 * x, 8, seed=0), 0, 1)
    np.testing.assert_array_equal(labels, 2 * images)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(training.ConfigError, match="batch_size=11"):
        training.ShuffledBatches(np.zeros(10), np.zeros(10), 11, seed=0)
