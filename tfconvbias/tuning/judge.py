"""Candidate policies judged by one network, in one compiled graph for all of them."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfconvbias.data import EVALUATION_BATCH_SIZE, Preprocessing
from tfconvbias.data.fast_auto_augment import DRAWS_PER_STEP
from tfconvbias.tuning.changing_policy import ChangingPolicy


class Judge(keras.Model):
    """Classes that a network sees in augmented copies of images.

    Each copy draws one of the candidate's sub-policies; then comes what the network was trained
    with, such as crop and flip. The candidate is a set of weights, so that another one takes its
    place without compiling anew.

    Args:
        network: A network from raw images to logits, whose `data.Preprocessing` holds the
            augmentation that it was trained with.
        num_sub_policies: Sub-policies of every candidate.
        num_steps: Operations of every sub-policy.
        num_draws: Copies of an image.

    Call arguments:
        inputs: A pair: images, `(batch, height, width, 3)` with values 0…255; and random numbers
            of the copies, `(batch, num_draws, 1 + 4 num_steps)`, uniform in [0, 1). The first of a
            copy draws the sub-policy, the others belong to `FastAutoAugment.apply_sub_policies`.

    Output shape:
        `(batch, num_draws)` int32, the class of each copy.
    """

    def __init__(self, network: keras.Model, num_sub_policies: int, num_steps: int, num_draws: int):
        super().__init__(name="judge")
        (self.preprocessing,) = (
            layer for layer in network.layers if isinstance(layer, Preprocessing)
        )
        self.rest = keras.Model(self.preprocessing.output, network.output)
        self.num_draws = num_draws
        self.candidate = ChangingPolicy(num_sub_policies, num_steps)
        self.candidate.build((None, *network.input_shape[1:]))
        self._draw_states = [
            variable
            for variable in self.preprocessing.variables
            if variable.path.endswith("seed_generator_state")
        ]

    def call(self, inputs):
        images, draws = inputs
        copies = ops.repeat(images, self.num_draws, axis=0)
        draws = ops.reshape(draws, (-1, draws.shape[-1]))
        num_parts = len(self.candidate.policy)
        part = ops.minimum(ops.cast(draws[:, 0] * num_parts, "int32"), num_parts - 1)
        changed = self.candidate.apply_sub_policies(copies, part, draws[:, 1:])
        logits = self.rest(self.preprocessing(changed, training=True), training=False)
        return ops.reshape(ops.argmax(logits, axis=-1), (-1, self.num_draws))

    def reward(
        self, policy: Any, images: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> float:
        """The share of images of which at least one copy is classified rightly.

        Args:
            policy: The candidate.
            images: `(images, height, width, 3)` uint8.
            labels: `(images,)` integers.
            generator: What all draws come from, so that they depend on its seed alone.
        """
        self.candidate.change_to(policy)
        for state in self._draw_states:
            state.assign(np.array([generator.integers(1 << 31), 0], state.dtype))
        draws = generator.random(
            (len(images), self.num_draws, 1 + DRAWS_PER_STEP * self.candidate.num_steps), "float32"
        )
        batch_size = max(1, EVALUATION_BATCH_SIZE // self.num_draws)
        classes = self.predict([images, draws], batch_size=batch_size, verbose=0)
        return float((classes == labels[:, None]).any(axis=1).mean())
