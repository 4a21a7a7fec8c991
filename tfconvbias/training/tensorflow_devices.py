"""Many devices under TensorFlow: `tf.distribute`, with batch statistics over the global batch."""

import contextlib
import functools
import json
import os
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


class _Distributed(Devices):
    """What a `tf.distribute` strategy needs to give the numbers of one device."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.num_replicas = strategy.num_replicas_in_sync

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
        if self.num_processes > 1:
            model.train_step = functools.partial(_logs_with_an_axis, model.train_step)
            model.test_step = functools.partial(_logs_with_an_axis, model.test_step)

    def stream(self, batches: ShuffledBatches, first_epoch: int) -> Any:
        # Cut up here, a part for each replica in turn: TensorFlow may open the iterator of a
        # generator twice, and of a Python generator that goes on the first batch would be lost.
        local = self.num_replicas // self.num_processes
        part = batches.batch_size // self.num_replicas
        rows = slice(part * local * self.process, part * local * (self.process + 1))

        def parts():
            for batch in batches.stream(first_epoch, rows):
                for replica in range(local):
                    own = slice(part * replica, part * (replica + 1))
                    yield tuple(array[own] for array in batch)

        signature = tuple(
            tf.TensorSpec((part, *array.shape[1:]), array.dtype) for array in (batches.x, batches.y)
        )
        return self._strategy.distribute_datasets_from_function(
            lambda _: tf.data.Dataset.from_generator(parts, output_signature=signature).prefetch(
                2 * local
            )
        )

    @functools.cached_property
    def _gather(self) -> Callable:
        def place(number):
            replica = tf.distribute.get_replica_context()
            here = tf.one_hot(replica.replica_id_in_sync_group, self.num_replicas, dtype="float64")
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, here * number)

        return tf.function(lambda number: self._strategy.run(place, args=(number,)))

    def gather(self, number: int) -> list[int]:
        if self.num_processes == 1:
            return [number]
        found = self._gather(tf.constant(number, "float64"))
        by_replica = self._strategy.experimental_local_results(found)[0].numpy()
        return [int(value) for value in by_replica[:: self.num_replicas // self.num_processes]]


class Mirrored(_Distributed):
    """A replica on each GPU of this machine, or on each logical CPU where there is no GPU."""

    strategy = "mirrored"

    def __init__(self, num_devices: int | None):
        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        names = tuple(device.name for device in choose(found, num_devices))
        super().__init__(_mirrored(names))


class MultiWorker(_Distributed):
    """A replica on each GPU of each machine that `TF_CONFIG` names."""

    strategy = "multi_worker"

    def __init__(self):
        try:
            cluster = json.loads(os.environ["TF_CONFIG"])
            workers, task = cluster["cluster"]["worker"], cluster["task"]
            index = int(task["index"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                "strategy='multi_worker' needs the environment variable TF_CONFIG, such as "
                '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
                '"task": {"type": "worker", "index": 0}}. '
                f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}"
            ) from error
        if task["type"] != "worker":
            raise ConfigError(
                "Every task in TF_CONFIG must be a worker; the first one is the chief. "
                f"Received: type={task['type']!r}"
            )
        if len(workers) > 1:
            raise ConfigError(
                "Keras' fit cannot build a model from batches that lie on several workers: it "
                "fails in its first step. Use strategy='data_parallel' with KERAS_BACKEND=jax for "
                f"several machines. Received: strategy='multi_worker' with {len(workers)} workers"
            )
        super().__init__(_multi_worker())
        self.num_processes, self.process = len(workers), index


@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # Collective operations serve one number of devices in a process; CPUs do without them.
    has_gpu = any("GPU" in name for name in names)
    operations = None if has_gpu else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=operations)


@functools.cache
def _multi_worker() -> tf.distribute.MultiWorkerMirroredStrategy:
    # One in a process: TensorFlow connects the machines when it is made.
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ConfigError(
            "strategy='multi_worker' must be set up before TensorFlow computes anything: call "
            f"`distribute` or `run` first thing in the program. TensorFlow says: {error}"
        ) from error


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


def _logs_with_an_axis(step: Callable, data):
    """A step's logs as Keras expects them of several workers: it averages over a first axis."""
    return {name: tf.reshape(value, (1,)) for name, value in step(data).items()}
