"""Steps per second on images that are read as they are needed, beside the same run in memory.

    python benchmarks/streaming.py [--images 3000] [--side 64] [--folder FOLDER]

One model, three ways to its images: in memory, streamed from JPEG files, and as TFRecords that
TensorFlow Datasets has written (shuffled over all images, decoded in parallel, prefetched), which
enter as `data.Loaders`. All go through `training.run`, in one process, one after the other in each
round; the first epoch of a run, which compiles, is left out. On a CPU, reading and training share
the cores; so the same is measured with a device that takes as long for a step as the run in memory
did and leaves the CPU alone (it waits). Target: a ratio of 0.9 or more there, so that the device is
not starved.

With --folder the images are those of a folder, and there are no TFRecords.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tfconvbias import data, training
from tfconvbias.optional import require

NUM_CLASSES = 10


def make_folder(root, num_images, side):
    """JPEGs of smooth noise, which compress about as much as photographs."""
    rng = np.random.default_rng(0)
    for split, share in (("train", 1.0), ("validation", 0.05), ("test", 0.05)):
        for label in range(NUM_CLASSES):
            place = root / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(round(share * num_images / NUM_CLASSES)):
                coarse = rng.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
                image.save(place / f"{index}.jpg", quality=90)


def tfrecords(dataset, folder, batch_size):
    """The data set as TensorFlow Datasets writes and reads it."""
    import tensorflow as tf

    tfds = require("tensorflow_datasets", "datasets", "The benchmark of TFRecords")
    tfds.disable_progress_bar()
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=dataset.image_shape, encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=dataset.class_names),
        }
    )
    splits = {
        name: tf.data.Dataset.from_tensor_slices(
            dict(zip(("image", "label"), dataset.split(name), strict=True))
        )
        for name in ("train", "validation", "test")
    }
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name="pictures", version="1.0.0", features=features, split_datasets=splits, data_dir=folder
    )

    # Small data sets would be kept in memory, decoded.
    reading = tfds.ReadConfig(try_autocache=False)

    def read(name):
        found = builder.as_dataset(split=name, shuffle_files=name == "train", read_config=reading)
        if name == "train":
            found = found.shuffle(len(dataset.x_train))
        found = found.map(lambda row: (row["image"], row["label"]))
        return found.batch(batch_size, drop_remainder=name == "train").prefetch(tf.data.AUTOTUNE)

    train, validation, test = (read(split) for split in splits)
    return data.Loaders(
        dataset.name,
        train,
        validation,
        test,
        dataset.image_shape,
        dataset.class_names,
        statistics=dataset.channel_statistics,
    )


def steps_per_second(config, dataset, run_dir):
    result = training.run(config.replace(run_dir=run_dir), dataset)
    steps = dataset.num_batches(config.batch_size)
    return statistics.median(steps / s for s in result.history["train_seconds"][1:])


def steps_beside_a_device(config, dataset, seconds):
    """Steps per second of a device that takes so long for each and leaves the CPU alone."""
    if isinstance(dataset, data.Loaders):
        batches, number = iter(dataset.train), dataset.num_batches(config.batch_size)
    else:
        ordered = training.ShuffledBatches(
            dataset.x_train, dataset.y_train, config.batch_size, config.seed
        )
        batches, number = ordered.stream(), ordered.num_batches
    next(batches)
    begun = time.perf_counter()
    for _ in range(number - 1):
        time.sleep(seconds)
        next(batches)
    return (number - 1) / (time.perf_counter() - begun)


def ratios(found, others):
    return [one / other for one, other in zip(found, others, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--folder")
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = training.RunConfig(
        connectivity="conv",
        base_channels=options.base_channels,
        batch_size=options.batch_size,
        epochs=options.epochs,
        tensorboard=False,
        verbose="silent",
    )
    with tempfile.TemporaryDirectory() as place:
        # So that what is measured first is not found in the user's cache.
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
        folder = Path(options.folder or f"{place}/pictures")
        if options.folder is None:
            make_folder(folder, options.images, options.side)
        opened = {}
        modes: dict[str, Literal["off", "auto", "on"]] = {"streamed": "on", "in memory": "off"}
        for name, stream in modes.items():
            begun = time.perf_counter()
            opened[name] = data.load(folder, stream=stream)
            listed = time.perf_counter()
            _ = opened[name].digest, opened[name].channel_statistics
            checked = time.perf_counter()
            print(
                f"{name}: opened in {listed - begun:.2f} s, digest and statistics in "
                f"{checked - listed:.2f} s"
            )
        if options.folder is None:
            opened["TFRecords"] = tfrecords(
                opened["in memory"], f"{place}/records", options.batch_size
            )
        rates: dict[str, list[float]] = {name: [] for name in opened}
        beside: dict[str, list[float]] = {name: [] for name in opened}
        for number in range(options.rounds):
            for name, dataset in opened.items():
                run_dir = f"{place}/{name}{number}"
                rates[name].append(steps_per_second(config, dataset, run_dir))
            seconds = 1 / rates["in memory"][-1]
            for name, dataset in opened.items():
                beside[name].append(steps_beside_a_device(config, dataset, seconds))
    resident, waiting = rates.pop("in memory"), beside.pop("in memory")
    height, width, _ = opened["in memory"].image_shape
    print(
        f"S-CONV α={config.base_channels}, {len(opened['in memory'].x_train):,} images of "
        f"{height}×{width}, batch {config.batch_size}: in memory "
        f"{statistics.median(resident):.2f} steps/s"
    )
    for name, found in rates.items():
        pairs = ratios(found, resident)
        device = ratios(beside[name], waiting)
        print(
            f"  {name}: {statistics.median(found):.2f} steps/s, {statistics.median(pairs):.2f} of "
            f"those in memory ({min(pairs):.2f}–{max(pairs):.2f}); beside a device of its own "
            f"{statistics.median(device):.2f} ({min(device):.2f}–{max(device):.2f})"
        )


if __name__ == "__main__":
    main()
