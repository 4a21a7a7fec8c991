"""A training step on 1 % of a layer's weights: dense Keras, tfmot's pruning and ours, in one run.

    python -m venv peers
    peers/bin/pip install tensorflow tf_keras tensorflow-model-optimization
    python benchmarks/sparse_peers.py --peer-python peers/bin/python
        [--model S_FC.keras | --data FOLDER --epochs 8] [--density 0.01] [--rate 0.05]

S-FC is trained by β-LASSO (a saved model may be given instead) up to the epoch whose first layer is
nearest to `--density`. Its layers, without preprocessing, then take training steps from these
weights on the same batches of images, each of these in a process of its own, in turns:

- `dense`: Keras, with β-LASSO;
- `certified`: the same with `CertifiedSparsity` of the first layer, which gives the same weights;
- `SparseDense`: the first layer's non-zeros only, with SGD: zeros stay zero;
- `tf_keras`: the dense model with SGD, in the peers' environment;
- `tfmot`: there, `prune_low_magnitude` of the first layer at the same sparsity, with SGD.

The last two are left out, with a message, where the given Python cannot import them. Printed are,
for each: the time of a step (lower quartile), its processor time summed over cores (the best
round), the memory of the first layer's weights, masks or indices, and gradients, and the size of
the saved model, as it is and compressed by gzip.
"""

import argparse
import gzip
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 128
STEPS = 40
WARM_UP = 5
ROUNDS = 5
OURS = ("dense", "certified", "SparseDense")
PEERS = ("tf_keras", "tfmot")


def prepare(arguments, file):
    """Writes weights of S-FC and batches of its images; returns the first layer's density."""
    import keras
    import numpy as np
    from sparse_inference import density, trained

    from tfconvbias import data

    if arguments.model:
        model = keras.saving.load_model(arguments.model)
    else:
        nearest, weights = math.inf, []
        for model in trained(arguments):
            distance = abs(density(model) - arguments.density)
            if distance < nearest:
                nearest, weights = distance, model.get_weights()
        model.set_weights(weights)
    dataset = data.load(arguments.data)
    images, labels = (part[: STEPS * BATCH] for part in (dataset.x_train, dataset.y_train))
    inputs = keras.Model(model.inputs, model.get_layer("conv1").input)
    arrays = {"x": inputs.predict(images, verbose=0), "y": labels}
    for layer in model.layers:
        for variable in layer.weights:
            name = variable.path.split("/")[-1]
            arrays[f"{layer.name}/{name}"] = keras.ops.convert_to_numpy(variable)
    np.savez(file, **arrays)
    return density(model)


def network(keras, arrays, first):
    """S-FC without its preprocessing, its first layer given; all others have their weights."""
    names = list(dict.fromkeys(key.partition("/")[0] for key in arrays))
    layers = [keras.layers.Input(arrays["x"].shape[1:]), first]
    for name in names[names.index("conv1") + 1 :]:
        if f"{name}/gamma" in arrays:
            layers += [keras.layers.BatchNormalization(name=name), keras.layers.ReLU()]
        else:
            units = arrays[f"{name}/kernel"].shape[1]
            layers.append(keras.layers.Dense(units, use_bias=f"{name}/bias" in arrays, name=name))
    model = keras.Sequential(layers)
    for layer in model.layers:
        of_layer = [values for key, values in arrays.items() if key.startswith(f"{layer.name}/")]
        if layer is not first and of_layer:
            layer.set_weights(of_layer)
    return model


def dense_first(keras, arrays):
    layer = keras.layers.Dense(arrays["conv1/kernel"].shape[1], use_bias=False, name="conv1")
    layer.build((None, arrays["x"].shape[1]))
    layer.set_weights([arrays["conv1/kernel"]])
    return layer


def compiled(keras, model, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    return model


def our_arm(name, arrays, rate):
    """The model, further callbacks of `fit`, and its sizes once it has been trained."""
    import keras

    from tfconvbias.callbacks import CertifiedSparsity
    from tfconvbias.layers import SparseDense
    from tfconvbias.optimizers import BetaLasso

    kernel = arrays["conv1/kernel"]
    if name == "SparseDense":
        first = SparseDense.from_kernel(kernel, name="conv1")
        model = compiled(keras, network(keras, arrays, first), keras.optimizers.SGD(rate))
        values, places = (variable.value.numpy().nbytes for variable in first.weights)
        return model, [], lambda: (values + places + values, model)
    model = network(keras, arrays, dense_first(keras, arrays))
    compiled(keras, model, BetaLasso(rate, 1e-4, 5.0, l1_overrides={"conv1": 4e-4}))
    if name == "dense":
        return model, [], lambda: (2 * kernel.nbytes, model)
    sparsity = CertifiedSparsity("conv1", choose="always", verbose=0)

    def sizes():
        found = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
        small = network(keras, arrays, SparseDense.from_kernel(found, name="conv1"))
        return sparsity.report[0].sparse_bytes, small

    return model, [sparsity], sizes


def peer_arm(name, arrays, rate):
    """The same for the peers."""
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    kernel = arrays["conv1/kernel"]
    first = dense_first(keras, arrays)
    if name == "tf_keras":
        model = compiled(keras, network(keras, arrays, first), keras.optimizers.SGD(rate))

        def sizes():
            # Without the optimizer, which in tf_keras holds a velocity of every weight.
            saved = keras.models.clone_model(model)
            saved.set_weights(model.get_weights())
            return 2 * kernel.nbytes, saved

        return model, [], sizes
    pruning = tfmot.sparsity.keras
    sparsity = float((kernel == 0).mean())
    schedule = pruning.ConstantSparsity(sparsity, begin_step=0, frequency=100)
    wrapped = pruning.prune_low_magnitude(first, pruning_schedule=schedule)
    model = compiled(keras, network(keras, arrays, wrapped), keras.optimizers.SGD(rate))
    wrapped.layer.set_weights([kernel])
    held = sum(v.numpy().nbytes for v in wrapped.variables) + kernel.nbytes
    return model, [pruning.UpdatePruningStep()], lambda: (held, pruning.strip_pruning(model))


def serve(arguments):
    """Takes STEPS training steps for each line of the standard input, and reports on them."""
    import numpy as np

    arrays = dict(np.load(arguments.weights))
    if arguments.arm in PEERS:
        import tf_keras as keras
    else:
        import keras
    make = peer_arm if arguments.arm in PEERS else our_arm
    model, callbacks, sizes = make(arguments.arm, arrays, arguments.rate)
    print("{}", flush=True)
    for line in sys.stdin:
        if line.strip() == "sizes":
            held, saved = sizes()
            print(json.dumps({"held": held, **file_sizes(saved)}), flush=True)
            continue
        begins = [0.0]
        times: list[float] = []
        busy: list[float] = []

        def begin(batch, logs, begins=begins, busy=busy):
            busy.append(time.process_time())
            begins[0] = time.perf_counter()

        def end(batch, logs, begins=begins, times=times):
            times.append(time.perf_counter() - begins[0])

        timer = keras.callbacks.LambdaCallback(on_train_batch_begin=begin, on_train_batch_end=end)
        model.fit(arrays["x"], arrays["y"], BATCH, verbose=0, callbacks=[timer, *callbacks])
        # The first steps compile.
        mean = (busy[-1] - busy[WARM_UP]) / (len(busy) - 1 - WARM_UP)
        print(json.dumps({"times": times[WARM_UP:], "processor": mean}), flush=True)


def file_sizes(model):
    """Bytes of the saved model, as it is and compressed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        content = file.read_bytes()
    return {"file": len(content), "gzip": len(gzip.compress(content))}


class Arm:
    """A process that takes training steps when told to."""

    def __init__(self, python, name, file, rate):
        command = [python, __file__, "--arm", name, "--weights", file, "--rate", str(rate)]
        variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        pipe = subprocess.PIPE
        self.process: Any = subprocess.Popen(
            command, env=variables, text=True, stdin=pipe, stdout=pipe, stderr=pipe
        )
        self._read()

    def ask(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self._read()

    def stop(self):
        self.process.communicate()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(self.process.communicate()[1])


def has_peers(python):
    """Whether tf_keras and tensorflow-model-optimization can be imported; prints why not."""
    if python is None:
        print("tf_keras and tfmot are left out: --peer-python was not given")
        return False
    versions = (
        "import tensorflow as t, tf_keras as k, tensorflow_model_optimization as m;"
        "print('TensorFlow', t.__version__, 'tf_keras', k.__version__, 'tfmot', m.__version__)"
    )
    try:
        done = subprocess.run([python, "-c", versions], capture_output=True, text=True)
    except OSError as error:
        print(f"tf_keras and tfmot are left out: {error}")
        return False
    if done.returncode:
        print(f"tf_keras and tfmot are left out: {done.stderr.strip().splitlines()[-1]}")
        return False
    print(f"peers: {done.stdout.strip()}")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="motifs10")
    parser.add_argument("--model", help="a saved S-FC to measure, not trained")
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--l1", type=float, default=4e-4, help="of layer 1; a quarter elsewhere")
    parser.add_argument("--beta", type=float, default=5.0)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate of the steps")
    parser.add_argument("--peer-python", help="a Python with tf_keras and tfmot")
    parser.add_argument("--arm", choices=(*OURS, *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.arm:
        serve(arguments)
        return
    pythons = dict.fromkeys(OURS, sys.executable)
    if has_peers(arguments.peer_python):
        pythons.update(dict.fromkeys(PEERS, arguments.peer_python))
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights.npz")
        found = prepare(arguments, file)
        print(
            f"first layer at {found:.2%}, batch {BATCH}, learning rate {arguments.rate:g}, "
            f"{os.cpu_count()} cores",
            flush=True,
        )
        arms = {name: Arm(python, name, file, arguments.rate) for name, python in pythons.items()}
        rounds = {name: [arm.ask("go")] for name, arm in arms.items()}
        for _ in range(ROUNDS):
            for name, arm in arms.items():
                rounds[name].append(arm.ask("go"))
        print(f"{'':<12}{'step':>10}{'processor':>12}{'layer 1':>12}{'file':>10}{'gzip':>10}")
        for name, arm in arms.items():
            measured = rounds[name][1:]  # without the round that compiled
            step = statistics.quantiles([s for done in measured for s in done["times"]])[0]
            processor = min(done["processor"] for done in measured)
            sizes = arm.ask("sizes")
            arm.stop()
            print(
                f"{name:<12}{1e3 * step:>7.1f} ms{1e3 * processor:>9.1f} ms"
                f"{sizes['held'] / 1e6:>9.2f} MB{sizes['file'] / 1e6:>7.2f} MB"
                f"{sizes['gzip'] / 1e6:>7.2f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
