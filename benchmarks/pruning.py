"""Is `surgery.prune` at least as good as Torch-Pruning on the same architectures?

    python benchmarks/pruning.py [--ratio 0.4] [--models ResNet50 VGG16 …] [--size 224]

Both cut the same share of every group by magnitude, without rounding, and leave the classifier's
outputs alone. Printed are the shares of parameters and multiply-adds that are left, the seconds
that it takes (with reading the graph; the model is built before), and by how much the outputs
change, ‖f(x) − g(x)‖ / ‖f(x)‖ for random inputs. Weights are random, by each framework's own
initializers, so that the last number compares roughly. Set up as here, Torch-Pruning 1.6 cuts of
torchvision's vision transformer the hidden units only; it may have options that do more.
Without `torch-pruning` and `torchvision` only ours runs. The aim: no more parameters and
multiply-adds than Torch-Pruning leaves plus one per cent of the model's, in no more time.
"""

import argparse
import importlib.util
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

from tfconvbias.surgery import Axis, LayerCut, prune, register_cut

NAMES = {
    "ResNet50": "resnet50",
    "MobileNetV2": "mobilenet_v2",
    "DenseNet121": "densenet121",
    "VGG16": "vgg16",
    "ViT": "",
}
PEER = all(importlib.util.find_spec(name) for name in ("torch_pruning", "torchvision"))
VIT = {"patch_size": 16, "num_layers": 6, "num_heads": 6, "hidden_dim": 384, "mlp_dim": 1536}


class Positions(layers.Layer):
    """Adds a learned vector to each token, with a class token in front."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.positions = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="positions")

    def call(self, inputs):
        token = ops.repeat(self.token, ops.shape(inputs)[0], axis=0)
        return ops.concatenate([token, inputs], axis=1) + self.positions

    def compute_output_shape(self, shape):
        return (shape[0], shape[1] + 1, shape[2])


register_cut(
    Positions,
    lambda layer: LayerCut(
        ("channels",),
        ("channels",),
        (Axis(layer.token, -1, "channels"), Axis(layer.positions, -1, "channels")),
    ),
)


def small_vit(size):
    width, heads = VIT["hidden_dim"], VIT["num_heads"]
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, VIT["patch_size"], strides=VIT["patch_size"])(inputs)
    x = Positions()(layers.Reshape((-1, width))(x))
    for _ in range(VIT["num_layers"]):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(VIT["mlp_dim"], activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(width)(y)])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(inputs, layers.Dense(1000)(x[:, 0]))


def relative_change(before, after):
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def ours(name, ratio, size):
    """Shares left of parameters and multiply-adds, seconds, change of the outputs."""
    if name == "ViT":
        model = small_vit(size)
    else:
        model = getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classifier_activation=None
        )
    images = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype("float32")
    before = model.predict_on_batch(images)
    start = time.perf_counter()
    smaller, report = prune(model, ratio=ratio, scope="layer", round_to=1)
    seconds = time.perf_counter() - start
    if report.multiply_adds is None:
        raise RuntimeError(f"The multiply-adds of {name} cannot be counted")
    shares = [after / full for full, after in (report.parameters, report.multiply_adds)]
    return *shares, seconds, relative_change(before, smaller.predict_on_batch(images))


def theirs(name, ratio, size):
    """The same of Torch-Pruning."""
    import torch
    import torch_pruning as tp
    import torchvision

    if name == "ViT":
        model = torchvision.models.VisionTransformer(image_size=size, **VIT)
        torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # zeros would hide any change
        head = model.heads.head
        heads = {
            m: m.num_heads for m in model.modules() if isinstance(m, torch.nn.MultiheadAttention)
        }
        options = {
            "num_heads": heads,
            "unwrapped_parameters": [(model.class_token, 2), (model.encoder.pos_embedding, 2)],
        }
    else:
        model = getattr(torchvision.models, NAMES[name])()
        head = model.fc if name == "ResNet50" else model.classifier
        head = head[-1] if isinstance(head, torch.nn.Sequential) else head
        options = {}
    model.eval()
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(images).numpy()
    operations, parameters = tp.utils.count_ops_and_params(model, images[:1])
    start = time.perf_counter()
    pruner = tp.pruner.BasePruner(
        model,
        images[:1],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[head],
        **options,
    )
    pruner.step()
    seconds = time.perf_counter() - start
    operations_left, parameters_left = tp.utils.count_ops_and_params(model, images[:1])
    with torch.no_grad():
        after = model(images).numpy()
    shares = (parameters_left / parameters, operations_left / operations)
    return *shares, seconds, relative_change(before, after)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=0.4)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    print(f"{keras.config.backend()}, ratio {arguments.ratio}, {arguments.size}×{arguments.size}")
    for name in arguments.models:
        for label, function in (("ours", ours), ("Torch-Pruning", theirs)):
            if label != "ours" and not PEER:
                continue
            parameters, work, seconds, change = function(name, arguments.ratio, arguments.size)
            print(
                f"{name:12s} {label:14s} parameters {parameters:.3f}  multiply-adds {work:.3f}  "
                f"{seconds:6.1f} s  change of the outputs {change:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
