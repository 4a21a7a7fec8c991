import io
import json
import os
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tfconvbias.data import PUBLISHED_POLICIES, FastAutoAugment, ImageOperation, augmentation
from tfconvbias.data.augmentation_policy import OPERATIONS, magnitude
from tfconvbias.data.image_operations import apply_operations
from tfconvbias.data.operation_tables import operation_tables

pytestmark = pytest.mark.backend
LEVELS = (0.0, 0.13, 0.25, 0.5, 0.61803, 0.777, 1.0)
SHARED = os.environ.get("TFCONVBIAS_SHARED_DATA")


def pillow(name, image, value, x=0.0, y=0.0):
    width, height = image.size
    if name == "Cutout":
        side = value * width
        if side <= 0:
            return image
        left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
        box = (left, top, min(width, left + side), min(height, top + side))
        image = image.copy()
        ImageDraw.Draw(image).rectangle(box, (125, 123, 114))
        return image
    matrices = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateX": (1, 0, value * width, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, value * height),
    }
    if name in matrices:
        return image.transform(image.size, Image.Transform.AFFINE, matrices[name])
    if name in ("Contrast", "Color", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(value)
    return {
        "Rotate": lambda: image.rotate(value),
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Invert": lambda: ImageOps.invert(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Solarize": lambda: ImageOps.solarize(image, value),
        "Posterize": lambda: ImageOps.posterize(image, int(value)),
    }[name]()


@pytest.fixture(scope="module")
def photos():
    """Parts of a photograph at several scales, and images on which statistics degenerate."""
    import matplotlib.cbook

    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB")
    images = [photo.resize((32, 32))]
    for number in range(20):
        size = 32 + 16 * number
        left, top = 9 * number, 13 * number
        images.append(photo.crop((left, top, left + size, top + size)).resize((32, 32)))
    generator = np.random.default_rng(0)
    odd = [
        np.full((32, 32, 3), 77),
        generator.integers(100, 104, (32, 32, 3)),
        generator.integers(0, 256, (32, 32, 3)),
        np.where(np.arange(32)[:, None, None] < 1, 255, np.zeros((32, 32, 3))),
        np.eye(32)[:, :, None] * (1, 2, 255),
    ]
    # Narrow ranges, where Pillow's AutoContrast ends one level below the exact quotient.
    odd += [np.arange(1024).reshape(32, 32, 1) % span + (10, 99, 250 - span) for span in (3, 7, 52)]
    return np.stack([np.asarray(image) for image in images] + odd).astype("uint8")


@pytest.fixture(scope="module")
def cifar10():
    if SHARED is None or not (Path(SHARED) / "cifar10-images.tar.xz").exists():
        pytest.skip("TFCONVBIAS_SHARED_DATA names no folder with cifar10-images.tar.xz")
    images = []
    with tarfile.open(Path(SHARED) / "cifar10-images.tar.xz", "r|xz") as archive:
        for member in archive:
            if member.isfile():
                content = archive.extractfile(member).read()
                images.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
            if len(images) == 200:
                break
    return np.stack(images)


def check_against_pillow(name, images):
    height, width = images.shape[1:3]
    steps = [(name, level) for level in LEVELS]
    tables = operation_tables(steps, height, width)
    centers = np.random.default_rng(1).random((len(images), 2), "float32")
    signs = (0, 1) if OPERATIONS[name].mirrored else (0,)
    for number, level in enumerate(LEVELS):
        for sign in signs:
            value = magnitude(name, level) * (1, -1)[sign]
            expected = np.stack(
                [
                    np.asarray(pillow(name, Image.fromarray(image), value, *place))
                    for image, place in zip(
                        images, (centers * np.float32([width, height])).tolist(), strict=True
                    )
                ]
            )
            rows = np.full(len(images), 2 * number + sign, "int32")
            found = apply_operations(
                ops.cast(images, "int32"),
                tables,
                ops.convert_to_tensor(rows),
                ops.convert_to_tensor(centers),
            )
            np.testing.assert_array_equal(
                ops.convert_to_numpy(found), expected, f"{name}, level {level}, sign {sign}"
            )


# Fast AutoAugment's published ranges, at levels 0, 1/2 and 1, and whether the sign is drawn.
PUBLISHED = {
    "ShearX": (-0.3, 0.0, 0.3, True),
    "ShearY": (-0.3, 0.0, 0.3, True),
    "TranslateX": (-0.45, 0.0, 0.45, True),
    "TranslateY": (-0.45, 0.0, 0.45, True),
    "Rotate": (-30, 0, 30, True),
    "AutoContrast": (0, 0.5, 1, False),
    "Invert": (0, 0.5, 1, False),
    "Equalize": (0, 0.5, 1, False),
    "Solarize": (0, 128, 256, False),
    "Posterize": (4, 6, 8, False),
    "Contrast": (0.1, 1.0, 1.9, False),
    "Color": (0.1, 1.0, 1.9, False),
    "Brightness": (0.1, 1.0, 1.9, False),
    "Sharpness": (0.1, 1.0, 1.9, False),
    "Cutout": (0.0, 0.1, 0.2, False),
}


def test_ranges_are_the_published_ones():
    assert set(OPERATIONS) == set(PUBLISHED)
    for name, (*values, mirrored) in PUBLISHED.items():
        found = [magnitude(name, level) for level in (0.0, 0.5, 1.0)]
        assert found == pytest.approx(values, abs=1e-12), name
        assert OPERATIONS[name].mirrored == mirrored, name


@pytest.mark.parametrize("level", [0.9, 0.1])
def test_mirrored_operations_go_both_ways(level, photos):
    """A shift by (2 level - 1) · 0.45 of the width, to the left in one half of the draws."""
    images = photos[:1].repeat(64, axis=0)
    found = augmented(ImageOperation("TranslateX", level=level, seed=5), images)
    columns = round(0.8 * 0.45 * 32)
    left = (found[:, :, :-columns] == images[:, :, columns:]).all((1, 2, 3))
    right = (found[:, :, columns:] == images[:, :, :-columns]).all((1, 2, 3))
    assert (left ^ right).all()
    assert 16 < left.sum() < 48


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_pillows_on_a_photograph(name, photos):
    check_against_pillow(name, photos)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_pillows_on_images_that_are_not_square(name, photos):
    check_against_pillow(name, photos[:8, 3:20, 1:30])


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_pillows_on_cifar10(name, cifar10):
    check_against_pillow(name, cifar10)


@pytest.mark.tensorflow  # The tables are the same on every backend, and JAX compiles for seconds.
def test_each_image_of_a_batch_has_its_own_operation(photos):
    """All operations beside each other in one step, where none may touch another's images."""
    images = photos[: len(OPERATIONS) + 1]
    policy = [[[name, 1.0, 0.777]] for name in OPERATIONS] + [[["Invert", 0.0, 0.777]]]
    draws = np.random.default_rng(2).random((len(images), 4), "float32")
    draws[:, 1] = 0.9  # no sign is turned
    layer = FastAutoAugment(policy)
    layer.build((None, 32, 32, 3))
    parts = np.arange(len(images), dtype="int32")
    found = ops.convert_to_numpy(layer.apply_sub_policies(images, parts, draws))
    places = (draws[:, 2:] * 32).tolist()
    for name, before, after, place in zip(OPERATIONS, images, found, places, strict=False):
        value = magnitude(name, 0.777)
        expected = np.asarray(pillow(name, Image.fromarray(before), value, *place))
        np.testing.assert_array_equal(after, expected, name)
    np.testing.assert_array_equal(found[-1], images[-1], "a step that is not kept")


def augmented(layer, images):
    return ops.convert_to_numpy(layer(images, training=True))


@pytest.mark.parametrize("name", ["Rotate", "Contrast", "Equalize", "Cutout"])
def test_layers_apply_the_operation_with_either_sign(name, photos):
    images = photos[:4].repeat(8, axis=0)
    found = augmented(ImageOperation(name, level=0.9, seed=3), images)
    assert found.dtype == np.uint8
    value = magnitude(name, 0.9)
    if name == "Cutout":
        changed = (found != images).any(-1)
        assert (found[changed] == (125, 123, 114)).all()
        areas = changed.sum((1, 2))
        assert areas.max() == 36
        assert areas.min() < 36
        assert len({area.tobytes() for area in changed}) > 20
        return
    both = [
        np.stack([np.asarray(pillow(name, Image.fromarray(image), v)) for image in images])
        for v in (value, -value if OPERATIONS[name].mirrored else value)
    ]
    is_first, is_second = ((found == part).all((1, 2, 3)) for part in both)
    assert (is_first | is_second).all()
    if OPERATIONS[name].mirrored:
        assert 5 < is_first.sum() < 27


def test_sub_policies_are_drawn_evenly_and_steps_independently(photos):
    # Told apart on a grey image: Invert sends 200 to 55, Solarize at 0.5 sends 55 nowhere and
    # 200 to 55, Posterize to 4 bits sends 200 to 192 and 55 to 48.
    policy = [
        [["Invert", 0.75, 0], ["Posterize", 0.25, 0]],
        [["Brightness", 1.0, 0.0]],
    ]
    images = np.full((4000, 3, 3, 3), 200, "uint8")
    found = augmented(FastAutoAugment(policy, seed=0), images)[:, 0, 0, 0]
    values, counts = np.unique(found, return_counts=True)
    shares = dict(zip(values.tolist(), (counts / 4000).tolist(), strict=True))
    expected = {
        20: 1 / 2,
        55: 0.75 * 0.75 / 2,
        48: 0.75 * 0.25 / 2,
        192: 0.25 * 0.25 / 2,
        200: 0.25 * 0.75 / 2,
    }
    assert shares.keys() == expected.keys()
    for value, share in expected.items():
        # Five standard deviations.
        assert abs(shares[value] - share) < 5 * (share * (1 - share) / 4000) ** 0.5


def test_steps_run_in_order():
    images = np.full((2, 3, 3, 3), 100, "uint8")
    first = [[["Invert", 1, 0], ["Brightness", 1, 1]]]
    assert augmented(FastAutoAugment(first), images)[0, 0, 0, 0] == 255
    second = [first[0][::-1]]
    assert augmented(FastAutoAugment(second), images)[0, 0, 0, 0] == 255 - 190


def test_nothing_happens_at_inference(photos):
    layer = ImageOperation("Invert", 0.5)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(photos)), photos)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(photos, training=False)), photos)


def test_seeds_decide_the_draws(photos):
    policy = [[["Rotate", 0.5, 0.9], ["Cutout", 0.9, 0.9]], [["ShearX", 0.8, 0.2]]]
    first = FastAutoAugment(policy, seed=1)
    found = augmented(first, photos)
    np.testing.assert_array_equal(augmented(FastAutoAugment(policy, seed=1), photos), found)
    assert (augmented(FastAutoAugment(policy, seed=2), photos) != found).any()
    assert (augmented(first, photos) != found).any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_float_images_keep_their_dtype(dtype, photos):
    layer = ImageOperation("Solarize", 0.25, dtype="mixed_bfloat16")
    images = ops.cast(photos, dtype)
    found = layer(images, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = np.where(photos < 64, photos, 255 - photos)
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(found, "int32")), expected)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: FastAutoAugment([[["Rotate", 0.5, 0.9]], [["Cutout", 0.1, 0.2]]], seed=5),
        lambda: ImageOperation("Color", 0.3, 0.4, seed=2),
    ],
)
def test_configuration_and_saved_models_hold_the_policy(layer, tmp_path, photos):
    layer = layer()
    copy = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert copy.policy == layer.policy
    np.testing.assert_array_equal(augmented(copy, photos), augmented(layer, photos))
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    outputs = layer(inputs)
    assert outputs.shape == (None, 32, 32, 3)
    assert outputs.dtype == "uint8"
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert loaded.policy == layer.policy


def test_a_loaded_model_reads_no_file(tmp_path):
    file = tmp_path / "policy.json"
    file.write_text(json.dumps([[["Invert", 1.0, 0.5]]]))
    config = {**FastAutoAugment(file).get_config(), "policy": str(file)}
    with pytest.raises(ValueError, match="must hold a policy, not the name of a file"):
        FastAutoAugment.from_config(config)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_runs_inside_the_compiled_step(jit_compile, photos):
    if jit_compile and keras.config.backend() == "torch":
        pytest.skip("torch.compile is not what this library's steps use")
    # Every operation once, so that every branch is compiled.
    policy = [[[name, 0.9, 0.7], ["Equalize", 0.5, 0]] for name in OPERATIONS]
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), dtype="uint8"),
            FastAutoAugment(policy, seed=0),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.compile("sgd", "mse", jit_compile=jit_compile)
    history = model.fit(photos[:24], np.zeros((24, 3)), batch_size=10, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_reads_policies_from_files(tmp_path):
    policy = [[["Rotate", 0.5, 0.25], ["Invert", 1, 0]]]
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    assert FastAutoAugment(file).policy == ((("Rotate", 0.5, 0.25), ("Invert", 1.0, 0.0)),)
    assert FastAutoAugment(str(file)).policy == FastAutoAugment(policy).policy


def test_a_policy_file_is_an_augmentation(tmp_path):
    file = tmp_path / "policy.json"
    file.write_text('[[["Rotate", 0.5, 0.25]]]')
    before, after = augmentation(str(file), seed=3)
    assert [type(layer).__name__ for layer in before] == [
        "FastAutoAugment",
        "PadCrop",
    ]
    assert before[0].seed == 3
    assert [type(layer).__name__ for layer in after] == ["Cutout"]


@pytest.mark.parametrize(("name", "size"), [("cifar10", 493), ("svhn", 497)])
def test_published_policies(name, size, photos):
    layer = FastAutoAugment(PUBLISHED_POLICIES[name], seed=0)
    assert len(layer.policy) == size
    assert (augmented(layer, photos) != photos).any((1, 2, 3)).mean() > 0.5


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_published_policies_are_as_published(name):
    if SHARED is None or not (Path(SHARED) / f"faa_{name}.json").exists():
        pytest.skip(f"TFCONVBIAS_SHARED_DATA names no folder with faa_{name}.json")
    published = json.loads((Path(SHARED) / f"faa_{name}.json").read_text())
    assert json.loads(PUBLISHED_POLICIES[name].read_text()) == published


@pytest.mark.parametrize(("dataset", "size", "length"), [("cifar100", 493, 16), ("svhn", 497, 20)])
def test_the_published_pipeline_goes_by_the_data_set(dataset, size, length):
    before, (cutout,) = augmentation("fast_autoaugment", dataset=dataset, seed=1)
    assert [type(layer).__name__ for layer in before] == [
        "FastAutoAugment",
        "PadCrop",
    ]
    assert (len(before[0].policy), cutout.length) == (size, length)
    _, (shorter,) = augmentation("fast_autoaugment", dataset=dataset, cutout_length=8)
    assert shorter.length == 8


def test_policies_are_part_of_the_package_with_their_licence():
    licence = (PUBLISHED_POLICIES["svhn"].parent / "LICENSE.txt").read_text(encoding="utf-8")
    assert "MIT License" in licence
    assert "kakaobrain/fast-autoaugment" in licence
    setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    assert '"data/policies/*"' in setup


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([[["Rotat", 0.5, 0.5]]], "sub-policy 0, step 0 must name one of .*Received: 'Rotat'"),
        ([[["Rotate", 0.5, 1.5]]], "the level must be a number in \\[0, 1\\]. Received: 1.5"),
        ([[["Rotate", 0.5, -0.1]]], "the level .* Received: -0.1"),
        ([[["Rotate", 0.5, float("nan")]]], "the level .* Received: nan"),
        ([[["Rotate", 1.1, 0.5]]], "the probability .* Received: 1.1"),
        ([[["Rotate", "often", 0.5]]], "the probability .* Received: 'often'"),
        ([[["Invert", 1, 0]], []], "sub-policy 1 must be a list of one or more"),
        ([[["Rotate", 0.5]]], "step 0 must be \\[operation, probability, level\\]"),
        ([["Rotate", 0.5, 0.5]], "step 0 must be \\[operation, probability, level\\]"),
        ([], "must be a list of sub-policies. Received: \\[\\]"),
        ({"ops": []}, "`policy` must be a string, or a path, or a sequence"),
        ([[[["Rotate"], 0.5, 0.5]]], "must name one of"),
    ],
)
def test_bad_policies(policy, message):
    with pytest.raises(ValueError, match=message):
        FastAutoAugment(policy)


def test_bad_files_and_images(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.json' cannot be read: No such file"):
        FastAutoAugment(tmp_path / "missing.json")
    file = tmp_path / "policy.json"
    file.write_text("[[")
    with pytest.raises(ValueError, match=r"policy\.json' is not a JSON file"):
        FastAutoAugment(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"policy\.json' is not a JSON file"):
        FastAutoAugment(file)
    file.write_text('[[["Rotate", 0.5, 2]]]')
    with pytest.raises(ValueError, match=r"policy\.json', sub-policy 0, step 0: the level"):
        FastAutoAugment(file)
    with pytest.raises(ValueError, match=r"ImageOperation works on images .*, 1\)"):
        ImageOperation("Invert", 0)(np.zeros((1, 4, 4, 1), "uint8"), training=True)
