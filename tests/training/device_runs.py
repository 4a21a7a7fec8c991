"""A tiny run in a process of its own: `python device_runs.py '{"rows": [...], …}'`.

Keys: `rows`, each the changes of one run; `out`, a file for the results, which the first process
writes; `die_after`, an epoch after which this process is killed as by `kill -9`.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from tfconvbias import data, training


def dataset():
    generator = np.random.default_rng(0)

    def split(num):
        y = np.arange(num) % 3
        x = generator.integers(0, 120, (num, 8, 8, 3)) + 60 * (y[:, None, None, None] == 1)
        return x.astype("uint8"), y

    (x, y), (xv, yv), (xt, yt) = split(96), split(25), split(31)
    return data.ImageDataset("tiny", x, y, xv, yv, xt, yt, ("a", "b", "c"))


def main():
    asked = json.loads(sys.argv[1])
    if asked.get("die_after"):
        save = training.RunFolder.save_checkpoint

        def die(folder, model, epoch, num_kept):
            save(folder, model, epoch, num_kept)
            if epoch == asked["die_after"]:
                os.kill(os.getpid(), signal.SIGKILL)

        training.RunFolder.save_checkpoint = die
    found = []
    for changes in asked["rows"]:
        base = training.RunConfig(
            connectivity="dense",
            base_channels=8,
            dataset="tiny",
            optimizer="beta_lasso",
            l1=1e-3,
            l1_conv=1e-3,
            epochs=4,
            batch_size=32,
            tensorboard=False,
            checkpoint_every=1,
            verbose="silent",
            resume=True,
        )
        result = training.run(base.replace(**changes), dataset())
        model = keras.models.load_model(result.folder.last_model)
        masks = [np.asarray(v) != 0 for v in model.trainable_variables if "kernel" in v.path]
        found.append(
            {
                "history": result.history,
                "test_loss": result.row["test_loss"],
                "nonzero": sum(int(mask.sum()) for mask in masks),
                "support": hashlib.sha256(b"".join(mask.tobytes() for mask in masks)).hexdigest(),
                "folder": str(result.folder.path),
            }
        )
    if all(Path(row["folder"]).is_relative_to(Path(asked["out"]).parent) for row in found):
        Path(asked["out"]).write_text(json.dumps(found))


if __name__ == "__main__":
    training.guarded(main)
