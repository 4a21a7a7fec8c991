"""The candidates of `locally_connected.py`, layers of equal work on each backend."""

import functools
import importlib.util
import math
from dataclasses import dataclass

import numpy as np

MEGABYTE = 1e6
LARGEST_DENSE_KERNEL = 256 * MEGABYTE


@dataclass(frozen=True)
class Case:
    """One shape of the benchmark, `same` padded."""

    name: str
    batch: int
    size: int
    channels: int
    kernel: int
    stride: int
    filters: int

    @property
    def out(self):
        return -(-self.size // self.stride)

    @property
    def positions(self):
        return self.out**2

    @property
    def entries(self):
        return self.kernel**2 * self.channels

    @property
    def padding(self):
        total = max((self.out - 1) * self.stride + self.kernel - self.size, 0)
        return total // 2, total - total // 2

    @property
    def patch_bytes(self):
        return 4 * self.batch * self.positions * self.entries

    @property
    def floor_bytes(self):
        """Inputs, kernel, and the outputs, with a gradient or cotangent for each."""
        inputs = self.batch * self.size**2 * self.channels
        kernel = self.positions * self.entries * self.filters
        outputs = self.batch * self.positions * self.filters
        return 4 * 2 * (inputs + kernel + outputs)

    def arrays(self):
        rng = np.random.default_rng(0)
        shapes = (
            (self.batch, self.size, self.size, self.channels),
            (self.out, self.out, self.kernel, self.kernel, self.channels, self.filters),
            (self.batch, self.out, self.out, self.filters),
        )
        inputs, kernel, cotangent = (rng.normal(size=s).astype("float32") for s in shapes)
        return inputs, kernel / math.sqrt(self.entries), cotangent

    def __str__(self):
        return (
            f"{self.name}: batch {self.batch}, {self.size}×{self.size}×{self.channels}, kernel "
            f"{self.kernel}×{self.kernel}, stride {self.stride}, {self.filters} filters"
        )


CASES = {
    "first": Case("first", 64, 32, 3, 9, 2, 32),
    "inner": Case("inner", 64, 16, 16, 3, 1, 16),
}


def our_layer(case, kernel):
    from tfconvbias.layers import LocallyConnected2D

    layer = LocallyConnected2D(
        case.filters,
        case.kernel,
        strides=case.stride,
        padding="same",
        use_bias=False,
        kernel_initializer="zeros",
    )
    layer.build((None, case.size, case.size, case.channels))
    layer.kernel.assign(kernel)
    return layer


def bare_arrays(case):
    rng = np.random.default_rng(1)
    shapes = (
        (case.positions, case.batch, case.entries),
        (case.positions, case.entries, case.filters),
        (case.positions, case.batch, case.filters),
    )
    return [rng.normal(size=s).astype("float32") for s in shapes]


def tensorflow_candidates(case):
    """Functions that set a candidate up and return its step; each yields arrays when called."""
    import tensorflow as tf

    inputs, kernel, cotangent = case.arrays()

    def step_of(layer, variable, jit, x=inputs, dy=cotangent):
        x, dy = tf.constant(x), tf.constant(dy)

        @tf.function(jit_compile=jit)
        def step():
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x)
            return outputs, *tape.gradient(outputs, [x, variable], dy)

        return lambda: [tf.convert_to_tensor(value).numpy() for value in step()]

    def ours(jit):
        layer = our_layer(case, kernel)
        return step_of(layer, layer.kernel.value, jit)

    def bare(jit):
        patches, weights, dy = map(tf.constant, bare_arrays(case))

        @tf.function(jit_compile=jit)
        def step():
            return (
                tf.matmul(patches, weights),
                tf.matmul(patches, dy, transpose_a=True),
                tf.matmul(dy, weights, transpose_b=True),
            )

        # Waiting for one number of each waits for all, without a copy of the large results.
        return lambda: [value[:1, :1, :1].numpy() for value in step()]

    def tf_keras_peer(implementation, jit):
        import tf_keras

        # Implementation 1 knows no `same`: it gets the padded inputs ready, outside the clock.
        pads = (case.padding, case.padding)
        is_first = implementation == 1
        layer = tf_keras.layers.LocallyConnected2D(
            case.filters,
            case.kernel,
            strides=case.stride,
            padding="valid" if is_first else "same",
            implementation=implementation,
            use_bias=False,
            kernel_initializer="zeros",
        )
        x = np.pad(inputs, ((0, 0), *pads, (0, 0))) if is_first else inputs
        layer.build(x.shape)
        if is_first:
            layer.kernel.assign(kernel.reshape(layer.kernel.shape))
        return step_of(layer, layer.kernel, jit, x)

    candidates = {
        "bare products": lambda: bare(False),
        "bare products, XLA": lambda: bare(True),
        "ours": lambda: ours(False),
        "ours, XLA": lambda: ours(True),
    }
    notes = {}
    if importlib.util.find_spec("tf_keras") is None:
        notes["tf_keras"] = "missing: pip install tf_keras"
        return candidates, notes
    dense = 4 * case.size**2 * case.channels * case.positions * case.filters
    for implementation in (1, 2, 3):
        if implementation == 2 and dense > LARGEST_DENSE_KERNEL:
            notes["tf_keras 2"] = f"skipped: its dense kernel has {dense / MEGABYTE:.0f} MB"
            continue
        candidates[f"tf_keras {implementation}"] = functools.partial(
            tf_keras_peer, implementation, False
        )
        if implementation == 2:
            candidates["tf_keras 2, XLA"] = lambda: tf_keras_peer(2, True)
    # XLA unrolls implementation 1 into a product per position, and has no sparse product for 3.
    notes["tf_keras 1 and 3, XLA"] = "left out: minutes to compile, unsupported"
    return candidates, notes


def jax_candidates(case):
    import jax
    from jax import numpy as jnp

    inputs, kernel, cotangent = (jnp.asarray(a) for a in case.arrays())

    def step_of(function, weights):
        @jax.jit
        def step(x, w, dy):
            outputs, pullback = jax.vjp(function, x, w)
            return outputs, *pullback(dy)

        return lambda: jax.block_until_ready(step(inputs, weights, cotangent))

    def ours():
        layer = our_layer(case, np.asarray(kernel))
        return step_of(lambda x, w: layer.stateless_call([w], [], x)[0], layer.kernel.value)

    def bare():
        @jax.jit
        def step(patches, weights, dy):
            return (
                patches @ weights,
                jnp.swapaxes(patches, 1, 2) @ dy,
                dy @ jnp.swapaxes(weights, 1, 2),
            )

        arrays = [jnp.asarray(a) for a in bare_arrays(case)]
        return lambda: jax.block_until_ready(step(*arrays))

    def local():
        # Its kernel has the channel ahead of the taps.
        shape = (case.out, case.out, case.entries, case.filters)
        weights = jnp.transpose(kernel, (0, 1, 4, 2, 3, 5)).reshape(shape)

        def function(x, w):
            return jax.lax.conv_general_dilated_local(
                x,
                w,
                (case.stride, case.stride),
                "SAME",
                (case.kernel, case.kernel),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        return step_of(function, weights)

    candidates = {"bare products": bare, "ours": ours, "conv_general_dilated_local": local}
    return candidates, {}


def torch_candidates(case):
    import torch

    inputs, kernel, cotangent = case.arrays()

    def grad_step(function, x, w, dy):
        x, w = x.requires_grad_(), w.requires_grad_()

        def step():
            outputs = function(x, w)
            return outputs, *torch.autograd.grad(outputs, (x, w), dy)

        return step

    def ours():
        layer = our_layer(case, kernel)
        x, dy = torch.tensor(inputs), torch.tensor(cotangent)
        return grad_step(lambda x, _: layer(x), x, layer.kernel.value, dy)

    def bare():
        patches, weights, dy = map(torch.tensor, bare_arrays(case))
        return lambda: (patches @ weights, patches.mT @ dy, dy @ weights.mT)

    def unfold():
        # In the layouts that suit it: channels first, channel ahead of the taps, positions first.
        x = torch.tensor(inputs).permute(0, 3, 1, 2).contiguous()
        w = torch.tensor(kernel).permute(0, 1, 4, 2, 3, 5)
        w = w.reshape(case.positions, case.entries, case.filters).contiguous()
        dy = torch.tensor(cotangent).reshape(case.batch, case.positions, case.filters)
        dy = dy.permute(1, 0, 2).contiguous()

        def function(x, w):
            padded = torch.nn.functional.pad(x, case.padding * 2)
            patches = torch.nn.functional.unfold(padded, case.kernel, stride=case.stride)
            return torch.bmm(patches.permute(2, 0, 1), w)

        return grad_step(function, x, w, dy)

    return {"bare products": bare, "ours": ours, "unfold + bmm": unfold}, {}


CANDIDATES = {
    "tensorflow": tensorflow_candidates,
    "jax": jax_candidates,
    "torch": torch_candidates,
}


def agreement(case, backend, steps):
    """Largest difference between our results and those of every peer with equal weights."""

    def numbers(name):
        return [np.asarray(getattr(v, "detach", lambda v=v: v)()) for v in steps[name]()]

    before, _ = case.padding
    inside = slice(before, before + case.size)
    ours = numbers("ours")
    found = {}
    for name in steps:
        theirs = None
        if name == "ours, XLA":
            theirs = numbers(name)
        elif name == "tf_keras 1":
            outputs, dx, dw = numbers(name)
            theirs = [outputs, dx[:, inside, inside], dw.reshape(ours[2].shape)]
        elif name in ("conv_general_dilated_local", "unfold + bmm"):
            outputs, dx, dw = numbers(name)
            if backend == "torch":
                outputs = outputs.transpose(1, 0, 2).reshape(ours[0].shape)
                dx = dx.transpose(0, 2, 3, 1)
            taps = (case.kernel, case.kernel)
            dw = dw.reshape(case.out, case.out, case.channels, *taps, case.filters)
            theirs = [outputs, dx, dw.transpose(0, 1, 3, 4, 2, 5)]
        if theirs is not None:
            gaps = [np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)]
            if max(gaps) > 1e-2:
                raise AssertionError(f"{name} differs from ours by {gaps} on {case}")
            found[name] = float(max(gaps))
    return found
