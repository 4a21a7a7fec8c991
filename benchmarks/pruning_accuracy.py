"""How accurate is what `surgery.prune` leaves, beside Torch-Pruning, after equal fine-tuning?

    KERAS_BACKEND=torch python benchmarks/pruning_accuracy.py --dataset FOLDER [--ratio 0.5]

A ResNet-20 learns in PyTorch. Its weights are copied into the same network in Keras, which is
checked to compute the same; there `surgery.prune` cuts it by magnitude, the same share of every
group. What is left is copied back into PyTorch, so that one loop, with the same batches, fine-tunes
it and what Torch-Pruning leaves of the same network with its own magnitude criterion. Printed are
test accuracies before and after fine-tuning, and what is left of parameters and multiply-adds, for
each seed. Beside them stands a network of the same widths that begins anew: one learns for as many
epochs as the fine-tuning takes, one for as many as base and fine-tuning together. `--taylor` adds
`surgery.prune` with first-order Taylor scores in one ranking of all channels, at the multiply-adds
of the row before. Without `torch-pruning` only ours runs.
"""

import argparse
import copy
import importlib.util
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tfconvbias import data, models, surgery

PEER = importlib.util.find_spec("torch_pruning") is not None
STRIDES = models.BASE_STRIDES["cifar20"]
EPSILON = 1e-3


class ResNet20(nn.Module):
    """`models.StructuredBase("cifar20")` in PyTorch, with any widths.

    Args:
        widths: Filters of convolution 1, 2, … and of the shortcuts, by name.
    """

    def __init__(self, widths, classes=10):
        super().__init__()
        before, channels = 3, {}
        for number, stride in enumerate(STRIDES, start=1):
            name = f"conv{number}"
            if number % 2 == 0:
                first = before
            self._add(name, before, widths[name], 3, stride)
            before = widths[name]
            shortcut = f"conv{number - 1}_shortcut"
            if number > 1 and number % 2 == 1 and shortcut in widths:
                self._add(shortcut, first, widths[shortcut], 1, STRIDES[number - 2])
            channels[number] = before
        self.fc = nn.Linear(before, classes)

    def _add(self, name, inputs, filters, size, stride):
        convolution = nn.Conv2d(inputs, filters, size, stride, size // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        self.add_module(name, convolution)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(filters, eps=EPSILON))

    def _run(self, name, x):
        return getattr(self, f"{name}_bn")(getattr(self, name)(x))

    def forward(self, x):
        for number in range(1, len(STRIDES) + 1):
            if number % 2 == 0:
                kept = x
            x = self._run(f"conv{number}", x)
            if number > 1 and number % 2 == 1:
                shortcut = f"conv{number - 1}_shortcut"
                x = x + (self._run(shortcut, kept) if hasattr(self, shortcut) else kept)
            x = functional.relu(x)
        return self.fc(x.mean(dim=(2, 3)))


def convolutions(network):
    return {name: m for name, m in network.named_children() if isinstance(m, nn.Conv2d)}


def to_keras(network, size):
    """The same network in Keras, on channels-last images."""
    widths = {name: layer.out_channels for name, layer in convolutions(network).items()}
    layers = [(widths[f"conv{number}"], 3) for number in range(1, len(STRIDES) + 1)]
    model = models.StructuredBase(
        layers,
        residual=True,
        strides=STRIDES,
        input_shape=(size, size, 3),
        kernel_initializer="zeros",
    )
    for name, layer in convolutions(network).items():
        model.get_layer(name).kernel.assign(array(layer.weight).transpose(2, 3, 1, 0))
        theirs, ours = getattr(network, f"{name}_bn"), model.get_layer(f"{name}_bn")
        parts = (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var)
        ours.set_weights([array(part) for part in parts])
    model.get_layer("fc").set_weights([array(network.fc.weight).T, array(network.fc.bias)])
    return model


def to_torch(model):
    """The network in PyTorch that a cut Keras model is."""
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    network = ResNet20({name: model.get_layer(name).filters for name in names})

    def assign(parameter, values):
        parameter.data.copy_(torch.tensor(np.ascontiguousarray(values)))

    for name, layer in convolutions(network).items():
        kernel = model.get_layer(name).get_weights()[0]
        assign(layer.weight, kernel.transpose(3, 2, 0, 1))
        theirs, ours = getattr(network, f"{name}_bn"), model.get_layer(f"{name}_bn")
        parts = (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var)
        for part, values in zip(parts, ours.get_weights(), strict=True):
            assign(part, values)
    kernel, bias = model.get_layer("fc").get_weights()
    assign(network.fc.weight, kernel.T)
    assign(network.fc.bias, bias)
    return network


def array(tensor):
    return tensor.detach().numpy()


def train(network, images, labels, epochs, rate, seed, batch=128):
    """SGD with momentum, a cosine of rates, flips and crops; the same batches for each network."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), rate, 0.9, weight_decay=1e-4)
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    network.train()
    side = images.shape[-1]
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator)[: steps * batch].split(batch):
            x = functional.pad(images[index], (2, 2, 2, 2))
            top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
            x = x[..., top : top + side, left : left + side]
            if torch.rand(1, generator=generator) < 0.5:
                x = x.flip(-1)
            loss = functional.cross_entropy(network(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network, images, labels):
    network.eval()
    hits = [
        (network(x).argmax(1) == y).float().sum()
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    ]
    return 100 * float(sum(hits)) / len(images)


@torch.no_grad()
def multiply_adds(network, size):
    """Per image, from the shapes of the outputs."""
    total, handles = [], []

    def count(layer, _, output):
        positions = output.shape[2] * output.shape[3] if output.ndim == 4 else 1
        total.append(positions * layer.weight.numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            handles.append(layer.register_forward_hook(count))
    network(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return sum(total)


def theirs(network, ratio, size):
    """What Torch-Pruning leaves."""
    import torch_pruning as tp

    smaller = copy.deepcopy(network).eval()
    tp.pruner.BasePruner(
        smaller,
        torch.zeros(1, 3, size, size),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[smaller.fc],
    ).step()
    return smaller


def pixels(images):
    """float32 `(n, 3, rows, cols)` with zero mean and unit deviation, roughly."""
    return torch.tensor((images.transpose(0, 3, 1, 2) / 127.5 - 1) * 2, dtype=torch.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="folder of images")
    parser.add_argument("--cache", help="folder for the decoded images")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--num-train", type=int, default=10000)
    parser.add_argument("--width", type=float, default=0.5, help="factor on the widths")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the channels that goes")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--fine-tune-epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.05, help="rate of the fine-tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--taylor", action="store_true")
    options = parser.parse_args()
    size = options.image_size
    loaded = data.load(options.dataset, image_size=(size, size), cache_dir=options.cache)
    loaded = loaded.limit(options.num_train)
    x, y = pixels(loaded.x_train), torch.tensor(loaded.y_train).long()
    x_test, y_test = pixels(loaded.x_test), torch.tensor(loaded.y_test).long()
    ended: dict[str, list[float]] = {}
    for seed in options.seeds:
        torch.manual_seed(seed)
        model = models.StructuredBase(
            [(round(options.width * width), 3) for width, _ in models.BASES["cifar20"]],
            residual=True,
            strides=STRIDES,
            input_shape=(size, size, 3),
            kernel_initializer="zeros",
        )
        base = ResNet20(
            {
                layer.name: layer.filters
                for layer in model.layers
                if isinstance(layer, keras.layers.Conv2D)
            }
        )
        train(base, x, y, options.epochs, 0.1, seed)
        model = to_keras(base, size)
        with torch.no_grad():
            expected = array(base(x_test[:64]))
        given = array(model(x_test[:64].permute(0, 2, 3, 1), training=False))
        difference = np.abs(given - expected).max() / np.abs(expected).max()
        if difference > 1e-4:
            raise RuntimeError(f"The networks differ in both frameworks: {difference:.1e}")
        full = multiply_adds(base, size)
        print(f"seed {seed}: base {accuracy(base, x_test, y_test):.2f} %", flush=True)
        found = {"surgery.prune, magnitude": to_torch(cut(model, options.ratio))}
        if PEER:
            found["Torch-Pruning, magnitude"] = theirs(base, options.ratio, size)
        if options.taylor:
            share = multiply_adds(found["surgery.prune, magnitude"], size) / full
            found["surgery.prune, taylor, global"] = to_torch(
                surgery.prune(
                    model,
                    multiply_adds=share,
                    importance="taylor",
                    round_to=1,
                    dataset=(array(x[:500].permute(0, 2, 3, 1)), loaded.y_train[:500]),
                    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                ).model
            )
        for name, network in found.items():
            before, start = accuracy(network, x_test, y_test), time.perf_counter()
            train(network, x, y, options.fine_tune_epochs, options.rate, seed + 1000)
            after = accuracy(network, x_test, y_test)
            ended.setdefault(name, []).append(after)
            parameters = sum(p.numel() for p in network.parameters())
            print(
                f"  {name:30s} parameters {parameters:7,}  multiply-adds "
                f"{multiply_adds(network, size) / full:.3f}  before {before:.2f} %  "
                f"after {after:.2f} %  ({time.perf_counter() - start:.0f} s)",
                flush=True,
            )
        smaller = found["surgery.prune, magnitude"]
        widths = {name: layer.out_channels for name, layer in convolutions(smaller).items()}
        for epochs in (options.fine_tune_epochs, options.epochs + options.fine_tune_epochs):
            torch.manual_seed(seed + 2000)
            network = train(ResNet20(widths), x, y, epochs, 0.1, seed + 1000)
            name = f"the same widths anew, {epochs} epochs"
            ended.setdefault(name, []).append(accuracy(network, x_test, y_test))
            print(f"  {name:30s} {ended[name][-1]:.2f} %", flush=True)
    for name, values in ended.items():
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        print(f"{name:32s} {statistics.fmean(values):.2f}{spread} %")


def cut(model, ratio):
    return surgery.prune(model, ratio=ratio, scope="layer", round_to=1).model


if __name__ == "__main__":
    main()
