"""Many devices under TensorFlow: `tf.distribute`, with batch statistics over the global batch."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfconvbias.graph import leaf_layers
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.devices import Devices, choose
from tfconvbias.training.errors import ConfigError

# Added to the first word of a seed for each replica: a large odd number, so that no two meet.
_SEED_STRIDE = 0x3C6EF372 | 1

_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")


class Mirrored(Devices):
    """A replica on each GPU of this machine, or on each logical CPU where there is no GPU."""

    strategy = "mirrored"

    def __init__(self, num_devices: int | None):
        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        names = tuple(device.name for device in choose(found, num_devices))
        self._strategy = _mirrored(names)
        self.num_replicas = self._strategy.num_replicas_in_sync

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        with self._strategy.scope():
            yield

    def prepare(self, model: keras.Model) -> None:
        if model.distribute_strategy is not self._strategy:
            raise ConfigError(
                f"A model must be built inside of `scope()` to be trained with {self.strategy}."
            )
        if self.num_replicas == 1:
            return
        used = [name for name in _CLIPPING if getattr(model.optimizer, name, None)]
        if used:
            raise ConfigError(
                f"tf.distribute clips the gradient of each replica, not that of the batch. "
                f"Received: an optimizer with {', '.join(used)}"
            )
        norms = []
        for layer in _all_layers(leaf_layers(model)):
            if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized:
                norms.append(layer)
            for value in vars(layer).values():
                if isinstance(value, keras.random.SeedGenerator) and "next" not in vars(value):
                    value.next = functools.partial(_next_of_replica, value.next)
        model.train_step = functools.partial(_synchronized_step, model.train_step, norms)

    def stream(self, batches: ShuffledBatches, first_epoch: int) -> Any:
        # Cut up here, a part for each replica in turn: TensorFlow may open the iterator of a
        # generator twice, and of a Python generator that goes on the first batch would be lost.
        part = batches.batch_size // self.num_replicas

        def parts():
            for batch in batches.stream(first_epoch):
                for replica in range(self.num_replicas):
                    own = slice(part * replica, part * (replica + 1))
                    yield tuple(array[own] for array in batch)

        signature = tuple(
            tf.TensorSpec((part, *array.shape[1:]), array.dtype) for array in (batches.x, batches.y)
        )
        return self._strategy.distribute_datasets_from_function(
            lambda _: tf.data.Dataset.from_generator(parts, output_signature=signature).prefetch(
                2 * self.num_replicas
            )
        )


@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # Collective operations serve one number of devices in a process; CPUs do without them.
    has_gpu = any("GPU" in name for name in names)
    operations = None if has_gpu else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=operations)


def _all_layers(layers: Iterable[keras.layers.Layer]) -> Iterator[keras.layers.Layer]:
    """The layers, and those in their attribute `layers`, as `data.Preprocessing` has one."""
    for layer in layers:
        yield layer
        yield from _all_layers(getattr(layer, "layers", ()))


def _next_of_replica(draw: Callable, ordered: bool = True):
    """A seed of the replica's own: without, all replicas would drop the same units."""
    seed = draw(ordered)
    replica = tf.distribute.get_replica_context()
    if replica is None:
        return seed
    number = tf.cast(replica.replica_id_in_sync_group, seed.dtype)
    return seed + tf.stack([number * _SEED_STRIDE, tf.zeros_like(number)])


def _synchronized_step(step: Callable, norms: list, data):
    """One training step, traced while the normalizations take the statistics of all replicas.

    They are switched for this time alone, since the switch is saved with a model and other
    backends refuse it.
    """
    for layer in norms:
        layer.synchronized = True
    try:
        return step(data)
    finally:
        for layer in norms:
            layer.synchronized = False
