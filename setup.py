"""Package metadata and dependencies of tfconvbias."""

from pathlib import Path

from setuptools import find_packages, setup

# What the package needs on any backend. Plain pip installs more: extras can only add.
CORE = [
    "filelock>=3.13",
    "h5py>=3.10",
    "jinja2>=3.1",
    "keras>=3.12",
    "matplotlib>=3.8",
    "numpy>=1.26",
    "pillow>=10",
    "rich>=13",
    "scipy>=1.12",
    "threadpoolctl>=3",
]
DATASETS = [
    "importlib_resources",  # tensorflow-datasets 4.9.10 imports it without declaring it
    "tensorflow-datasets>=4.9.8",
]
TENSORFLOW = [
    "tensorboard>=2.18",  # tensorflow no longer brings it; KerasTuner and the recipes need it
    "tensorflow>=2.20",
]
TUNER = ["keras-tuner[bayesian]>=1.4.7"]
POLICIES = ["optuna>=5"]
DOCS = [
    "furo>=2025.7.19",
    "griffe>=1.14",
    "myst-parser>=4",
    "sphinx>=8.1",
]
TEST = [
    "bandit>=1.8",
    "bokeh>=3.7",
    "hypothesis>=6.100",
    "jax>=0.6",
    "mypy>=1.15",
    "numba>=0.61",
    *POLICIES,
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.11",
    "setuptools>=77",  # builds the wheel that make test-wheel tries
    # One version, so that its CPU build can be installed first: from PyPI it brings CUDA on Linux.
    "torch==2.13.0",
]

setup(
    name="tfconvbias",
    version="0.1.0",
    author="the tfconvbias authors",
    # The policies in tfconvbias/data/policies are under the MIT licence.
    license_expression="Apache-2.0 AND MIT",
    license_files=["LICENSE", "tfconvbias/data/policies/LICENSE.txt"],
    keywords=[
        "keras",
        "convolution",
        "locally connected",
        "inductive bias",
        "sparsity",
        "pruning",
        "deep learning",
    ],
    description="Keras 3 tools for the bias of convolutions: locality and weight sharing",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    # Recipes and saved models stand beside the package, where they are found first, and are
    # installed in it.
    packages=[
        *find_packages(include=["tfconvbias", "tfconvbias.*"]),
        "tfconvbias.recipes",
        "tfconvbias.saved_models",
    ],
    package_dir={"tfconvbias.recipes": "recipes", "tfconvbias.saved_models": "saved_models"},
    package_data={
        "tfconvbias": ["py.typed", "data/policies/*", "training/page_template/*"],
        "tfconvbias.recipes": ["*.md"],
        "tfconvbias.saved_models": ["*"],
    },
    install_requires=[*CORE, *DATASETS, *TENSORFLOW, *TUNER],
    entry_points={"console_scripts": ["tcb=tfconvbias.commands:main"]},
    extras_require={
        "bench": ["tf_keras>=2.18", "torch>=2.5"],
        "core": CORE,
        "datasets": [*DATASETS, *TENSORFLOW],
        "docs": DOCS,
        "gpu": ["tensorflow[and-cuda]>=2.20"],
        "jax": ["jax>=0.6"],
        "ray": ["ray[default]>=2.40"],
        "mutants": ["cosmic-ray>=8.3", "coverage>=7.5"],
        "pages": ["bokeh>=3.7"],
        "policies": POLICIES,
        "sparse": ["numba>=0.61"],
        "test": TEST,
        "tensorflow": TENSORFLOW,
        "torch": ["torch>=2.5"],
        "tuner": TUNER,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
)
