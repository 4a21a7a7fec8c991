"""A number of an optimizer that may change while a compiled training step runs."""

import math
import re
from numbers import Real
from typing import Any

import keras

Schedule = keras.optimizers.schedules.LearningRateSchedule


class Hyperparameter:
    """A tracked scalar, or a schedule over the optimizer's iterations.

    A Python float that a compiled step captures is frozen into it. A number is therefore kept in a
    scalar variable of the optimizer (saved and restored with its state) and a schedule is evaluated
    inside the step, on the clock that Keras uses for learning rates: every call of `apply`,
    including the micro-steps of gradient accumulation.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that owns the number. Its base constructor must
            have run.
        name: Name of the argument, for the variable and for error messages.
        value: A finite number >= 0 or a `LearningRateSchedule`.

    Raises:
        ValueError: If `value` is neither.
    """

    def __init__(self, optimizer, name: str, value) -> None:
        self.name = name
        self._optimizer = optimizer
        self._source: Any = value
        if not isinstance(value, Schedule):
            # float32 even where the default is float16: 1e-6 is a subnormal number there.
            double = keras.config.floatx() == "float64"
            self._source = optimizer.add_variable(
                shape=(),
                initializer=keras.initializers.Constant(self._checked(value)),
                dtype="float64" if double else "float32",
                aggregation="only_first_replica",
                name=re.sub(r"\W+", "_", name),  # a variable's name may hold no slash
            )

    def _checked(self, value) -> float:
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise ValueError(
                f"`{self.name}` must be a finite number >= 0 or a "
                f"`keras.optimizers.schedules.LearningRateSchedule`. Received: {self.name}={value}"
            )
        return float(value)

    @property
    def current(self):
        """The variable itself, or the schedule's value at the optimizer's present iteration."""
        if isinstance(self._source, Schedule):
            return self._source(self._optimizer._iterations)
        return self._source

    def set(self, value) -> None:
        """Assigns a new number.

        Raises:
            TypeError: If the number follows a schedule, or a schedule is to replace a number: a
                step that is already compiled would not notice.
            ValueError: If `value` is not a finite number >= 0.
        """
        if isinstance(self._source, Schedule) or isinstance(value, Schedule):
            raise TypeError(
                f"`{self.name}` can be set only from a number to a number: a schedule has to be "
                f"passed to the constructor and stays. Received: {self.name}={value}"
            )
        self._source.assign(self._checked(value))

    def to_float(self) -> float:
        """The present value as a Python float."""
        return float(keras.ops.convert_to_numpy(self.current))

    def to_config(self):
        """The present number, or the serialized schedule."""
        if isinstance(self._source, Schedule):
            return keras.optimizers.schedules.serialize(self._source)
        return self.to_float()


def from_config(value, custom_objects=None):
    """Reverses `Hyperparameter.to_config`."""
    if isinstance(value, dict):
        return keras.optimizers.schedules.deserialize(value, custom_objects=custom_objects)
    return value
