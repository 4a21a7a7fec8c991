"""Whole epochs as one execution of the compiled step, with the images on the device."""

from collections.abc import Callable, Generator

import keras
from keras import ops

from tfconvbias.training.batches import ShuffledBatches


class DeviceEpochs:
    """Hands `fit` an epoch at a time, so that no step waits for the host.

    Images and labels are copied to the device once. What `fit` takes for one batch is the order of
    a whole epoch, and the model's `train_step` becomes a compiled loop over the epoch's steps,
    each of which gathers its images and is Keras' own step. The batches, and up to rounding the
    results, are those of `ShuffledBatches.stream`. For accelerators: on a CPU nothing waits, and
    XLA's convolutions are slower in a loop.

    ```
    epochs = DeviceEpochs(batches)
    epochs.attach(model)
    model.fit(epochs.stream(), steps_per_epoch=1, shuffle=False)
    ```

    Args:
        batches: the batches that make the epochs.
    """

    def __init__(self, batches: ShuffledBatches):
        self.batches = batches
        self.x = ops.convert_to_tensor(batches.x)
        self.y = ops.convert_to_tensor(batches.y)

    def attach(self, model: keras.Model) -> None:
        """Replace the `train_step` of this one model, which must be compiled.

        Loss, metrics and optimizer are built first, since `fit` would do so from what it takes
        for a batch.
        """
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model.test_on_batch(self.batches.x[:1], self.batches.y[:1])
        model.reset_metrics()
        is_stateless = keras.config.backend() == "jax"
        model.train_step = (self._stateless_epoch if is_stateless else self._epoch)(model)

    def stream(self, first_epoch: int = 0) -> Generator[tuple]:
        """Yield what `train_step` takes for each epoch from `first_epoch` on, endlessly."""
        # JAX would compile what it doesn't get as an argument into the program; elsewhere Keras
        # copies arguments through its input pipeline.
        constants = (self.x, self.y) if keras.config.backend() == "jax" else ()
        epoch = first_epoch
        while True:
            yield (*constants, self.batches.order(epoch).astype("int32"))
            epoch += 1

    def _epoch(self, model: keras.Model) -> Callable:
        one_step = model.train_step

        def train_epoch(data):
            (order,) = data

            def body(step, done):
                one_step(_gather(self.x, self.y, order[step]))
                return done + 1

            ops.fori_loop(0, self.batches.num_batches, body, 0)
            return model.get_metrics_result()

        return train_epoch

    def _stateless_epoch(self, model: keras.Model) -> Callable:
        one_step = model.train_step

        def train_epoch(state, data):
            x, y, order = data

            def body(step, state):
                return one_step(state, _gather(x, y, order[step]))[1]

            state = ops.fori_loop(0, self.batches.num_batches, body, tuple(map(list, state)))
            metrics = zip(model.metrics_variables, state[-1], strict=True)
            with keras.StatelessScope(state_mapping=list(metrics)):
                return model.get_metrics_result(), state

        return train_epoch


def _gather(x, y, chosen):
    return ops.take(x, chosen, axis=0), ops.take(y, chosen, axis=0)
