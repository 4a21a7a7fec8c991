import keras
import numpy as np
import pytest

from tfconvbias.data import OPERATIONS, Cutout, FastAutoAugment, Normalize, Preprocessing
from tfconvbias.tuning.changing_policy import ChangingPolicy
from tfconvbias.tuning.judge import Judge

SIDE = 6
PLAIN = Normalize((0.0,) * 3, (1.0,) * 3)


def judge_by_brightness(*augmentation, **sizes):
    """A judge whose network says 1 where the mean of an image's values is above 119."""
    layers = Preprocessing([*augmentation, PLAIN], name="preprocessing")
    image = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    flat = keras.layers.Flatten()(layers(image))
    outputs = keras.layers.Dense(2, name="logits")(flat)
    network = keras.Model(image, outputs)
    size = 3 * SIDE**2
    kernel = np.tile(np.array([-1.0, 1.0], "float32") / size, (size, 1))
    network.get_layer("logits").set_weights([kernel, np.array([119, -119], "float32") / 255])
    judge = Judge(network, **{"num_sub_policies": 5, "num_steps": 2, "num_draws": 3} | sizes)
    judge.run_eagerly = True  # for a few images compiling takes longer
    return judge


@pytest.fixture(scope="module")
def judge():
    return judge_by_brightness()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3)).astype("uint8")


def random_policy(generator, num_sub_policies, num_steps=2):
    """Operations in random order, none twice before all are named."""
    names = np.resize(generator.permutation(list(OPERATIONS)), (num_sub_policies, num_steps))
    return [[[str(name), *generator.random(2).tolist()] for name in part] for part in names]


@pytest.mark.backend
def test_a_changing_policy_equals_each_policy_in_one_graph(images):
    traced = []

    class Apply(keras.Model):
        def __init__(self):
            super().__init__()
            self.policy = ChangingPolicy(8, 2)
            self.policy.build((None, SIDE, SIDE, 3))

        def call(self, inputs):
            traced.append(1)
            return self.policy.apply_sub_policies(*inputs)

    model = Apply()
    generator = np.random.default_rng(1)
    part = generator.integers(0, 8, len(images)).astype("int32")
    draws = generator.random((len(images), 8), "float32")
    inputs = [images, part, draws]
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), images)
    num_traced = len(traced)
    # Between them the policies name every operation; the first one's translations need numbers
    # that single precision does not hold.
    far = [[["TranslateX", 1.0, 0.01], ["Cutout", 1.0, 1.0]]] * 4
    policies = [far + random_policy(generator, 4), *(random_policy(generator, 8) for _ in "ab")]
    assert {name for policy in policies for part in policy for name, *_ in part} == set(OPERATIONS)
    for policy in policies:
        model.policy.change_to(policy)
        fixed = FastAutoAugment(policy)
        fixed.build((None, SIDE, SIDE, 3))
        expected = keras.ops.convert_to_numpy(fixed.apply_sub_policies(*inputs))
        np.testing.assert_array_equal(model.predict(inputs, verbose=0), expected)
        assert (expected != images).any()
    if keras.config.backend() != "torch":  # which compiles nothing
        assert len(traced) == num_traced


def test_a_policy_of_another_size_is_refused():
    policy = ChangingPolicy(2, 2)
    policy.build((None, SIDE, SIDE, 3))
    for other in ([[["Invert", 1.0, 0.0]] * 2], [[["Invert", 1.0, 0.0]]] * 2):
        with pytest.raises(ValueError, match="must have 2 sub-policies of 2 steps"):
            policy.change_to(other)


# Each sub-policy leaves its own mark, of which NumPy knows what it does to the brightness.
MARKS = [
    [["Invert", 0.5, 0.0], ["Invert", 0.0, 0.0]],
    [["Brightness", 0.5, 0.0], ["Invert", 1.0, 0.0]],
    [["Invert", 1.0, 0.0], ["Brightness", 0.5, 0.0]],
    [["Solarize", 1.0, 0.0], ["Brightness", 0.5, 1.0]],
    [["Brightness", 1.0, 0.0], ["Invert", 0.5, 0.0]],
]
NUMPY = {
    ("Invert", 0.0): lambda x: 255 - x,
    ("Solarize", 0.0): lambda x: 255 - x,
    ("Brightness", 0.0): lambda x: np.floor(np.float32(0.1) * x),
    ("Brightness", 1.0): lambda x: np.floor(np.minimum(np.float32(1.9) * x, 255)),
}


@pytest.mark.backend
def test_each_copy_draws_a_sub_policy_and_its_steps(judge, images):
    draws = np.random.default_rng(2).random((len(images), 3, 9), "float32")
    judge.candidate.change_to(MARKS)
    classes = judge.predict([images, draws], verbose=0)
    assert classes.shape == (40, 3)
    seen = np.zeros(5, int)
    for image, copies, found in zip(images, draws, classes, strict=True):
        for draw, answer in zip(copies, found, strict=True):
            pixels = image.astype("float32")
            number = int(5 * draw[0])
            for step, (name, probability, level) in enumerate(MARKS[number]):
                if draw[1 + 4 * step] < probability:
                    pixels = NUMPY[name, level](pixels)
            assert answer == (pixels.mean() > 119)
            seen[number] += 1
    assert (seen > 10).all()


def test_the_reward_is_the_share_of_images_with_a_copy_that_is_right(judge, images, monkeypatch):
    classes = np.array([[0, 0, 1], [0, 0, 0], [1, 1, 1], [1, 0, 1]])
    monkeypatch.setattr(judge, "predict", lambda *args, **kwargs: classes)
    labels = np.array([1, 1, 0, 0])
    generator = np.random.default_rng(0)
    assert judge.reward(MARKS, images[:4], labels, generator) == 0.5
    assert judge.reward(MARKS, images[:4], np.array([0, 0, 1, 2]), generator) == 0.75


def test_the_best_of_more_draws_counts(images):
    half_inverted = [[["Invert", 0.5, 0.0]]]
    dark = images // 4
    both, labels = np.concatenate([dark, 255 - dark]), np.repeat([0, 1], len(images))
    for num_draws, low, high in ((1, 0.3, 0.7), (8, 0.95, 1.0)):
        judge = judge_by_brightness(num_sub_policies=1, num_steps=1, num_draws=num_draws)
        reward = judge.reward(half_inverted, both, labels, np.random.default_rng(0))
        assert low <= reward <= high


def test_what_the_network_was_trained_with_comes_after_the_candidate(images):
    # A square of zeros over the whole image: everything is dark.
    judge = judge_by_brightness(num_draws=1)
    hiding = judge_by_brightness(Cutout(4 * SIDE, seed=0), num_draws=1)
    bright = [[["Brightness", 1.0, 1.0]] * 2] * 5
    ones = np.ones(len(images), int)
    for some, reward in ((judge, 1.0), (hiding, 0.0)):
        assert some.reward(bright, images, ones, np.random.default_rng(0)) == reward


def test_draws_depend_on_the_generator_alone(images):
    judge = judge_by_brightness(keras.layers.RandomFlip(seed=0), Cutout(4, seed=1))
    policy = random_policy(np.random.default_rng(3), 5)
    found = []
    predict = judge.predict
    judge.predict = lambda *args, **kwargs: found.append(predict(*args, **kwargs)) or found[-1]
    for candidate, seed in ((policy, 0), (MARKS, 1), (policy, 0), (policy, 2)):
        judge.reward(candidate, images, np.zeros(40, int), np.random.default_rng(seed))
    np.testing.assert_array_equal(found[2], found[0])
    assert (found[3] != found[0]).any()
