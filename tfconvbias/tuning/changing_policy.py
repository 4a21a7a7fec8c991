"""A policy whose sub-policies are weights, so that a compiled graph serves any candidate."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.data import FastAutoAugment
from tfconvbias.data.augmentation_policy import read_policy
from tfconvbias.data.operation_tables import EVERY_KIND, OperationTables, operation_tables

_HALF = 1 << 16


class ChangingPolicy(FastAutoAugment):
    """A policy that another one of the same size takes the place of, without compiling anew.

    At first it leaves images as they are. All operations are in the graph, and each runs on every
    image.

    Args:
        num_sub_policies: Sub-policies of every policy.
        num_steps: Operations of every sub-policy.

    Raises:
        ValueError: If the images are not channels-last RGB.
    """

    def __init__(self, num_sub_policies: int, num_steps: int):
        super().__init__([[["Invert", 0.0, 0.0]] * num_steps] * num_sub_policies, seed=0)

    def build(self, input_shape):
        super().build(input_shape)
        self._image_size = input_shape[1:3]
        num_parts = len(self.policy)
        num_rows = 2 * (num_parts + 1)
        # In single precision, which every backend keeps on a graphics card. A number of `affine`
        # may need more digits than it has, so that its two halves are apart.
        shapes = {
            "affine_high": (num_rows, 6),
            "affine_low": (num_rows, 6),
            "lookup": (num_rows,),
            "lookups": (1 + 2 * num_parts, 256),
            "kind": (num_rows,),
            "factor": (num_rows,),
            "side": (num_rows,),
        }
        self._entries = [
            {name: self._entry(shape, f"{name}_{step}") for name, shape in shapes.items()}
            for step in range(self.num_steps)
        ]
        self._probabilities = self._entry((num_parts, self.num_steps), "probabilities")
        self.change_to(self.policy)

    def change_to(self, policy: Any) -> None:
        """Put another policy in this one's place.

        Raises:
            ValueError: If it is no policy, or has another number of sub-policies or of steps.
        """
        policy = read_policy(policy)
        if [len(part) for part in policy] != [self.num_steps] * len(self.policy):
            raise ValueError(
                f"`policy` must have {len(self.policy)} sub-policies of {self.num_steps} steps. "
                f"Received: policy={policy}"
            )
        self.policy = policy
        self._probabilities.assign([[step[1] for step in part] for part in policy])
        for number, entries in enumerate(self._entries):
            steps = [part[number][::2] for part in policy]
            tables = operation_tables([*steps, None], *self._image_size)
            num_unused = entries["lookups"].shape[0] - len(tables.lookups)
            arrays = {
                "affine_high": tables.affine // _HALF,
                "affine_low": tables.affine % _HALF,
                "lookup": tables.lookup,
                "lookups": np.pad(tables.lookups, ((0, num_unused), (0, 0))),
                "kind": tables.kind,
                "factor": tables.factor,
                "side": tables.side,
            }
            for name, array in arrays.items():
                entries[name].assign(array.astype("float32"))

    def _step_tables(self) -> list[OperationTables]:
        return [_tables(entries) for entries in self._entries]

    def _entry(self, shape: tuple[int, ...], name: str) -> Any:
        return self.add_weight(
            shape=shape,
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            name=name,
        )


class _AnyOperations(OperationTables):
    """Tables of which it is not known which operations they name."""

    moves = True
    looks_up = True
    kinds = EVERY_KIND


def _tables(entries: dict[str, keras.Variable]) -> OperationTables:
    whole = {
        name: ops.cast(ops.convert_to_tensor(entries[name]), "int32")
        for name in ("affine_high", "affine_low", "lookup", "lookups", "kind")
    }
    return _AnyOperations(
        affine=whole["affine_high"] * _HALF + whole["affine_low"],
        lookup=whole["lookup"],
        lookups=whole["lookups"],
        kind=whole["kind"],
        factor=ops.convert_to_tensor(entries["factor"]),
        side=ops.convert_to_tensor(entries["side"]),
    )
