"""Sparse models exported, and the exported files run."""

import keras
import numpy as np
import pytest

from tfconvbias.layers import BlockDense, SparseDense
from tfconvbias.surgery import densify, sparsify

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

INPUTS, UNITS = 200, 120


@pytest.fixture(scope="module")
def model():
    """A dense network with 2 % of the first layer's weights, all of them within 60 inputs."""
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((INPUTS,)),
            keras.layers.Dense(UNITS, name="first"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(5, name="logits"),
        ]
    )
    kernel = rng.normal(size=(INPUTS, UNITS))
    kernel[60:] = 0
    kernel[rng.random(kernel.shape) < 0.93] = 0
    model.get_layer("first").set_weights([kernel, rng.normal(size=UNITS)])
    return model


def inputs(num_examples):
    return np.random.default_rng(1).normal(size=(num_examples, INPUTS)).astype("float32")


def assert_same(model, run):
    """On few examples and on many, which SparseDense multiplies differently."""
    for num_examples in (1, 20):
        images = inputs(num_examples)
        expected = keras.ops.convert_to_numpy(model(images, training=False))
        np.testing.assert_allclose(run(images), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "layer"), [("sparse", SparseDense), ("block", BlockDense)])
def test_saved_model(model, tmp_path, kind, layer):
    import tensorflow as tf

    small, _ = sparsify(model, choose="smallest", kinds=(kind,))
    assert isinstance(small.get_layer("first"), layer)
    small.export(tmp_path / "exported", verbose=False)
    artifact = tf.saved_model.load(str(tmp_path / "exported"))
    assert_same(model, lambda images: artifact.serve(images).numpy())


def tflite_file(model, *optimizations):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = list(optimizations)
    return converter.convert()


def run_tflite(content, images):
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=content)
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite(model):
    import tensorflow as tf

    dense = tflite_file(model)
    block, _ = sparsify(model, choose="smallest", kinds=("dense", "block"))
    sparse, _ = sparsify(model, choose="smallest", kinds=("sparse",))
    files = {
        "block": tflite_file(block),
        "densified": tflite_file(densify(sparse)),
        # TFLite's own sparse storage, which it chooses for kernels with many zeros.
        "stored sparse": tflite_file(densify(sparse), tf.lite.Optimize.EXPERIMENTAL_SPARSITY),
    }
    for content in files.values():
        assert_same(model, lambda images, content=content: run_tflite(content, images))
    assert len(files["block"]) < len(dense) / 2
    assert len(files["densified"]) > 0.9 * len(dense)
    assert len(files["stored sparse"]) < len(dense) / 5


def test_tflite_knows_no_sparse_product(model):
    """The way round is `kinds=("dense", "block")`, or `densify`."""
    sparse, _ = sparsify(model, choose="smallest", kinds=("sparse",))
    with pytest.raises(Exception, match="SparseTensorToCSRSparseMatrix"):
        tflite_file(sparse)


@pytest.mark.filterwarnings("ignore")
def test_onnx(model, tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    block, _ = sparsify(model, choose="smallest", kinds=("dense", "block"))
    sparse, _ = sparsify(model, choose="smallest", kinds=("sparse",))
    for name, exported in (("block", block), ("densified", densify(sparse))):
        path = tmp_path / f"{name}.onnx"
        # Keras exports to ONNX what has been called.
        exported(inputs(1))
        exported.export(path, format="onnx", verbose=False)
        session = onnxruntime.InferenceSession(str(path))
        given = session.get_inputs()[0].name
        assert_same(
            model, lambda images, run=session.run, given=given: run(None, {given: images})[0]
        )
    sparse(inputs(1))
    with pytest.raises(ValueError, match="SparseTensorToCSRSparseMatrix"):
        sparse.export(tmp_path / "sparse.onnx", format="onnx", verbose=False)
