"""Many devices under JAX: `keras.distribution`, where a step is written for the global batch."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import jax
import keras
from jax.experimental import multihost_utils

from tfconvbias.data import EVALUATION_BATCH_SIZE
from tfconvbias.training.batches import ShuffledBatches
from tfconvbias.training.devices import PROCESS_VARIABLES, Devices, Layout, choose
from tfconvbias.training.errors import ConfigError, LostProcessError, RecipeError

# What JAX, Gloo and NCCL say where the other end of a connection is gone.
_LOST = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "coordination service")


class _WholeWhereUneven:
    """A batch that cannot be cut into equal parts goes to every device as a whole."""

    num_processes: int
    num_model_replicas: int
    device_mesh: keras.distribution.DeviceMesh

    def get_data_layout(self, data_shape):
        if data_shape[0] * self.num_processes % self.num_model_replicas == 0:
            return super().get_data_layout(data_shape)  # type: ignore[misc]
        axes = [None] * len(data_shape)
        return keras.distribution.TensorLayout(axes, self.device_mesh)


class _DataParallel(_WholeWhereUneven, keras.distribution.DataParallel):
    pass


class _ModelParallel(_WholeWhereUneven, keras.distribution.ModelParallel):
    pass


class _Distributed(Devices):
    distribution: keras.distribution.DataParallel | keras.distribution.ModelParallel

    def __init__(self, num_replicas: int):
        self.num_replicas = num_replicas
        self.num_processes, self.process = jax.process_count(), jax.process_index()

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        with self.distribution.scope():
            yield

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        try:
            yield
        except RecipeError:
            raise
        except (RuntimeError, ValueError) as error:
            if self.num_processes == 1 or not any(word in str(error) for word in _LOST):
                raise
            first = next(iter(str(error).splitlines()))[:200]
            raise LostProcessError(
                f"Another process of this run has ended or cannot be reached ({first})."
            ) from error

    def prepare(self, model: keras.Model) -> None:
        found = {len(variable.value.sharding.device_set) for variable in model.variables}
        if found != {self.distribution.device_mesh.devices.size}:
            raise ConfigError(
                f"A model must be built inside of `scope()` to be trained with {self.strategy}."
            )

    def stream(self, batches: ShuffledBatches, first_epoch: int) -> Any:
        part = batches.batch_size // self.num_processes
        rows = slice(part * self.process, part * (self.process + 1))
        return batches.stream(first_epoch, rows)

    def evaluation(self, images_and_labels: tuple) -> tuple[tuple, int]:
        # Keras lays out all batches as it does the first one: all are cut, or none is.
        num, parts = len(images_and_labels[0]), self.num_replicas
        if parts == 1:
            return images_and_labels, EVALUATION_BATCH_SIZE
        if num % parts == 0:
            size = max(parts, EVALUATION_BATCH_SIZE // parts * parts) // self.num_processes
            own = tuple(part[self.process :: self.num_processes] for part in images_and_labels)
            return own, size
        size = EVALUATION_BATCH_SIZE
        if parts == self.num_processes:
            # Every batch can be cut. Each process hands in all images, so that every image counts
            # as often as the others.
            return images_and_labels, size
        while size * self.num_processes % parts == 0:
            size -= 1
        if num < size:
            size = num
        return images_and_labels, size

    def gather(self, number: int) -> list[int]:
        if self.num_processes == 1:
            return [number]
        return [int(value) for value in multihost_utils.process_allgather(number).ravel()]


class DataParallel(_Distributed):
    """Parts of the batch on all devices, those of other processes among them."""

    strategy = "data_parallel"

    def __init__(self, num_devices: int | None):
        _connect()
        names = keras.distribution.list_devices()
        if num_devices is not None and jax.process_count() > 1:
            raise ConfigError(
                f"Several processes use all of their devices. Received: num_devices={num_devices}"
            )
        names = choose(names, num_devices)
        super().__init__(len(names))
        self.distribution = _DataParallel(devices=names, auto_shard_dataset=False)


class ModelParallel(_Distributed):
    """Dense kernels cut into parts that lie on different devices of this machine."""

    strategy = "model_parallel"

    def __init__(self, num_devices: int | None, layout: Layout, num_shards: int | None):
        if jax.process_count() > 1:
            raise ConfigError(
                "strategy='model_parallel' saves its kernels from one process only. "
                f"Received: {jax.process_count()} processes"
            )
        names = choose(keras.distribution.list_devices(), num_devices)
        shards = len(names) if num_shards is None else num_shards
        if shards < 2 or len(names) % shards:
            raise ConfigError(
                f"strategy='model_parallel' cuts kernels into at least 2 parts, which must divide "
                f"the number of devices, {len(names)}. Received: num_shards={shards}"
            )
        replicas = len(names) // shards
        mesh = keras.distribution.DeviceMesh((replicas, shards), ["batch", "model"], names)
        layout_map = keras.distribution.LayoutMap(mesh)
        for pattern, axes in layout.items():
            layout_map[pattern] = axes
        super().__init__(replicas)
        self.num_shards = shards
        self.distribution = _ModelParallel(layout_map=layout_map, auto_shard_dataset=False)

    def __str__(self) -> str:
        return f"{super().__str__()}, kernels in {self.num_shards} parts"


@functools.cache
def _connect() -> None:
    """Join the other processes, once, where the environment names them."""
    if PROCESS_VARIABLES[0] not in os.environ or jax.distributed.is_initialized():
        return
    address, count, number = (os.environ[name] for name in PROCESS_VARIABLES)
    # Said beforehand, since JAX ends a process at once, without an exception.
    print(
        f"Process {number} of {count} waits for the others at {address}, five minutes at most. "
        "If one of them ends later, JAX ends the others within two minutes; the same commands "
        "with --resume go on.",
        flush=True,
    )
    # With a seed Keras need not agree on one, which takes a computation.
    keras.utils.set_random_seed(0)
    keras.distribution.initialize()
