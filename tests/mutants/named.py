"""Bugs that reviewers planted by hand and that the tests of their day let live: `--named`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Named:
    """One change of one file, and the tests that must see it."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def code(self, original: str) -> str:
        """The whole file with the change."""
        if original.count(self.before) != 1:
            raise SystemExit(f"{self.name}: {self.file} does not hold once: {self.before}")
        return original.replace(self.before, self.after)

    @property
    def path(self) -> Path:
        """The file, relative to the repository's root."""
        return Path(self.file)


_FAMILIES = ("tests/models/test_families.py",)
_VANILLA = ("tests/models/test_vanilla_cnn.py",)
_STRUCTURED = ("tests/models/test_structured_base.py",)
_AUGMENTATION = ("tests/data/test_fast_auto_augment.py",)
_SPHERE = ("tests/data/test_sphere.py",)
_RELU_UNITS = ("tests/callbacks/test_relu_units.py", "tests/analysis/test_path_norm.py")
_SURGERY = ("tests/surgery/test_constants.py", "tests/surgery/test_compact.py")
_FILES = ("tests/training/test_entry_point.py",)
_RUNNER = ("tests/training/test_runner.py", "tests/training/test_trainer.py")
_PERMUTED = ("tests/training/test_permuted_runs.py",)
_SEARCH = ("tests/tuning/test_search.py", "tests/tuning/test_search_config.py")
_CANDIDATES = ("tests/tuning/test_policy_candidates.py",)

NAMED = [
    Named(
        "the cosine falls within the first epochs: its length in epochs, not in steps",
        "tfconvbias/training/runner.py",
        "compile_model(config, model, config.epochs * num_batches)",
        "compile_model(config, model, config.epochs)",
        _RUNNER,
    ),
    Named(
        "ReLU before BatchNorm in every family",
        "tfconvbias/models/blocks.py",
        'return keras.layers.ReLU(name=f"{name}_relu")(normalized(tensor, name))',
        'return normalized(keras.layers.ReLU(name=f"{name}_relu")(tensor), name)',
        _FAMILIES,
    ),
    Named(
        "ReLU before BatchNorm in StructuredBase",
        "tfconvbias/models/structured_base.py",
        "x = blocks.normalized(volume.tensor, conv, batch_norm_momentum)",
        'x = blocks.normalized(keras.layers.ReLU(name=f"{conv}_r")(volume.tensor), conv,'
        " batch_norm_momentum)",
        _STRUCTURED,
    ),
    Named(
        "no ReLU in VanillaCNN",
        "tfconvbias/models/vanilla_cnn.py",
        'return keras.layers.ReLU(name=f"{name}_relu")(conv(tensor))',
        'return keras.layers.Activation("linear", name=f"{name}_relu")(conv(tensor))',
        _VANILLA,
    ),
    Named(
        "ResNet18's second convolution always 3×3",
        "tfconvbias/models/resnet18.py",
        'branch, filters, kernel_size, 1, name=f"{prefix}_conv2"',
        'branch, filters, 3, 1, name=f"{prefix}_conv2"',
        _FAMILIES,
    ),
    *(
        Named(
            f"another range of {operation}",
            "tfconvbias/data/augmentation_policy.py",
            f'"{operation}": Magnitudes({before}',
            f'"{operation}": Magnitudes({after}',
            _AUGMENTATION,
        )
        for operation, before, after in [
            ("ShearX", "-0.3, 0.3", "-0.2, 0.2"),
            ("TranslateY", "-0.45, 0.45", "-0.4, 0.4"),
            ("Rotate", "-30, 30", "-45, 45"),
            ("Solarize", "0, 256", "0, 255"),
            ("Posterize", "4, 8", "3, 8"),
            ("Color", "0.1, 1.9", "0.1, 1.8"),
            ("Cutout", "0, 0.2", "0, 0.25"),
        ]
    ),
    Named(
        "mirroring off",
        "tfconvbias/data/operation_tables.py",
        "if sign and OPERATIONS[operation].mirrored:",
        "if False and OPERATIONS[operation].mirrored:",
        _AUGMENTATION,
    ),
    Named(
        "the search keeps the worst trial",
        "tfconvbias/tuning/results.py",
        'sign = -1 if oracle.objective.direction == "max" else 1',
        'sign = 1 if oracle.objective.direction == "max" else -1',
        _SEARCH,
    ),
    Named(
        "the search maximises the wrong way",
        "tfconvbias/tuning/oracles.py",
        'keras_tuner.Objective("val_accuracy", "max")',
        'keras_tuner.Objective("val_accuracy", "min")',
        _SEARCH,
    ),
    Named(
        "a candidate's reward counts copies, not images",
        "tfconvbias/tuning/judge.py",
        "(classes == labels[:, None]).any(axis=1).mean()",
        "(classes == labels[:, None]).mean()",
        ("tests/tuning/test_judge.py",),
    ),
    Named(
        "the policy search avoids what has high rewards",
        "tfconvbias/tuning/proposals.py",
        'create_study(direction="maximize")',
        'create_study(direction="minimize")',
        _CANDIDATES,
    ),
    Named(
        "the policy search keeps the worst candidates",
        "tfconvbias/tuning/candidate_rounds.py",
        'key=lambda found: -found["reward"]',
        'key=lambda found: found["reward"]',
        _CANDIDATES,
    ),
    Named(
        "σ for σ²",
        "tfconvbias/callbacks/relu_units.py",
        "gap = abs(excess + self.noise**2 - train)",
        "gap = abs(excess + self.noise - train)",
        _RELU_UNITS,
    ),
    Named(
        "no noise on the labels",
        "tfconvbias/data/teacher.py",
        "y_train=teacher(x_train) + np.float32(noise) * errors,",
        "y_train=teacher(x_train),",
        _SPHERE,
    ),
    Named(
        "the mean for the largest radius",
        "tfconvbias/callbacks/relu_units.py",
        "float(np.linalg.norm(inputs, axis=-1).max()),",
        "float(np.linalg.norm(inputs, axis=-1).mean()),",
        _RELU_UNITS,
    ),
    Named(
        "points in the ball instead of on the sphere",
        "tfconvbias/data/sphere.py",
        "points *= radius / np.linalg.norm(points, axis=1, keepdims=True)",
        "points *= radius / np.linalg.norm(points, axis=1).max()",
        _SPHERE,
    ),
    Named(
        "ZeroPadding passes constants on",
        "tfconvbias/surgery/rule_table.py",
        "evaluate=facts.constants)",
        'evaluate="kept" if facts.kind == "padding" else facts.constants)',
        _SURGERY,
    ),
    Named(
        "layers that are called twice absorb constants",
        "tfconvbias/surgery/rule_table.py",
        "is_shared=graph.is_shared(call), mixes=mixes)",
        "is_shared=False, mixes=mixes)",
        _SURGERY,
    ),
    Named(
        "equation 34 without the division by the groups",
        "tfconvbias/regularizers/complexity.py",
        'width = ops.sum(inputs) / getattr(call.operation, "groups", 1)',
        "width = ops.sum(inputs)",
        ("tests/regularizers/test_complexity.py",),
    ),
    Named(
        "multiply-adds of a transposed convolution by its output places",
        "tfconvbias/surgery/kernel_rule.py",
        "self.view.positions(self.input_shape if transposed else self.output_shape)",
        "self.view.positions(self.output_shape)",
        (
            "tests/surgery/test_threshold.py",
            "tests/surgery/test_learned_architecture.py",
            "tests/surgery/test_compact.py",
            "tests/surgery/test_constants.py",
            "tests/surgery/test_prune.py",
        ),
    ),
    Named(
        "models are not saved atomically",
        "tfconvbias/training/run_folder.py",
        "with replacing(file) as unfinished:\n            model.save(unfinished)",
        "model.save(file)",
        _FILES,
    ),
    Named(
        "JSON is not written atomically",
        "tfconvbias/training/files.py",
        'write_text(file, json.dumps(content, indent=1) + "\\n")',
        "file.parent.mkdir(parents=True, exist_ok=True)\n"
        '    file.write_text(json.dumps(content, indent=1) + "\\n")',
        _FILES,
    ),
    Named(
        "a run with permuted pixels has the name of one without",
        "tfconvbias/training/runner.py",
        '+ ("" if config.permute_pixels is None else f"-permuted{config.permute_pixels}"),',
        '+ "",',
        _PERMUTED,
    ),
    Named(
        "runs train on unpermuted pixels whatever was asked",
        "tfconvbias/training/build.py",
        "permute_pixels=config.permute_pixels,",
        "permute_pixels=None,",
        _PERMUTED,
    ),
    Named(
        "the permutation study trains on unpermuted pixels",
        "tfconvbias/studies/neyshabur2020/permutation_study.py",
        "((_PLAIN, None), (_PERMUTED, self.run.permute_pixels))",
        "((_PLAIN, None), (_PERMUTED, None))",
        _PERMUTED,
    ),
]
