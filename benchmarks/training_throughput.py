"""Throughput of a recipe's epoch beside a bare Keras `fit` of the same model and batch.

    python benchmarks/training_throughput.py [--base-channels 8] [--rounds 5]

The recipe's epoch has its batch order, seeds, non-zero counts, history and checkpoint; the bare
`fit` gets the same model, data and optimizer as arrays. Epochs alternate in one process. Target:
S-FC within 10 %.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time

import keras

from tfconvbias import data, training
from tfconvbias.training.build import compile_model


def bare_epoch_seconds(config, dataset, epochs):
    keras.utils.set_random_seed(0)
    model = training.build_model(config, dataset)
    compile_model(config, model, 1000)
    steps = len(dataset.x_train) // config.batch_size
    x = dataset.x_train[: steps * config.batch_size]
    y = dataset.y_train[: steps * config.batch_size]
    times = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            times.append(time.perf_counter() - self.start)

    model.fit(
        x,
        y,
        batch_size=config.batch_size,
        validation_data=(dataset.x_validation, dataset.y_validation),
        validation_batch_size=1000,
        epochs=epochs,
        verbose=0,
        callbacks=[Watch()],
    )
    return times[1:]


def recipe_epoch_seconds(config, dataset, epochs):
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            config, epochs=epochs, run_dir=f"{folder}/run", tensorboard=False, verbose="silent"
        )
        return training.run(config, dataset).history["seconds"][1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    dataset = data.load("motifs10")
    for optimizer in ("sgd", "beta_lasso"):
        config = training.RunConfig(
            connectivity="dense",
            base_channels=options.base_channels,
            dataset="motifs10",
            optimizer=optimizer,
            batch_size=128,
        )
        pairs = []
        for _ in range(options.rounds):
            bare = statistics.median(bare_epoch_seconds(config, dataset, 4))
            recipe = statistics.median(recipe_epoch_seconds(config, dataset, 4))
            pairs.append((bare, recipe))
        ratio = statistics.median(recipe / bare for bare, recipe in pairs)
        bare, recipe = map(statistics.median, zip(*pairs, strict=True))
        print(
            f"S-FC α={options.base_channels}, {optimizer}: bare fit {bare:.2f} s an epoch, "
            f"recipe {recipe:.2f} s, ratio {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
