"""Many candidate augmentations judged by one network."""

import keras

from tfconvbias.data import FastAutoAugment


class Judge(keras.Model):
    """Logits of images after the sub-policies of given numbers: one graph for all candidates."""

    def __init__(self, network: keras.Model, augment: FastAutoAugment):
        super().__init__(name="judge")
        self.network = network
        self.augment = augment
        augment.build((None, *network.input_shape[1:]))

    def call(self, inputs):
        images, part = inputs
        return self.network(self.augment.apply_sub_policies(images, part), training=False)
