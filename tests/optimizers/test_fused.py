import keras
import numpy as np
import pytest

from tfconvbias.optimizers import BetaLasso
from tfconvbias.optimizers.fused import CHUNK_SIZE, MIN_FUSED_SIZE

backend = keras.config.backend()


def run(split, threshold, momentum):
    """Updates one large variable, or the same weights as many small ones."""
    rng = np.random.default_rng(0)
    size = CHUNK_SIZE + 3 * MIN_FUSED_SIZE + 5
    parts = np.array_split(np.arange(size), split)
    values = rng.normal(size=size).astype("float32") / 10
    gradients = rng.normal(size=(3, size)).astype("float32")
    variables = [keras.Variable(values[p], dtype="float32", name="kernel") for p in parts]
    optimizer = BetaLasso(0.02, 1e-3, 30.0, threshold, momentum=momentum)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient[p]) for p in parts], variables)
    return np.concatenate([keras.ops.convert_to_numpy(v) for v in variables])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("threshold", ["hard", "soft"])
def test_large_variables_are_updated_as_small_ones(threshold, momentum):
    large, small = run(1, threshold, momentum), run(16, threshold, momentum)
    assert 0.05 < np.mean(small == 0) < 0.95
    if backend != "tensorflow":
        np.testing.assert_array_equal(large, small)
        return
    # Compiled, a weight may fall to the other side of the hard threshold by its last bit.
    flipped = (large == 0) != (small == 0)
    assert flipped.mean() < 1e-4
    np.testing.assert_allclose(large[~flipped], small[~flipped], rtol=1e-5, atol=1e-7)


@pytest.mark.tensorflow
def test_only_large_variables_are_compiled():
    import tensorflow as tf

    def compiled(size):
        variable = keras.Variable(np.ones(size, "float32"), name="kernel")
        optimizer = BetaLasso(0.1, 1e-3, 1.0)
        optimizer.build([variable])

        @tf.function
        def step(gradient):
            optimizer.apply([gradient], [variable])

        graph = step.get_concrete_function(tf.TensorSpec(size)).graph
        return any("_XlaMustCompile" in str(node.attr) for node in graph.as_graph_def().node)

    assert compiled(MIN_FUSED_SIZE)
    assert not compiled(MIN_FUSED_SIZE - 1)
