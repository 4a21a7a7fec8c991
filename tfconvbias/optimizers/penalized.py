"""The choice of the variables that a sparsity penalty acts on."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfconvbias.arguments import checked


def variable_path(variable) -> str:
    """The path of a Keras variable, or the name of a backend's own variable."""
    path = getattr(variable, "path", None)
    return path if path is not None else variable.name.removesuffix(":0")


@checked
def is_kernel(variable) -> bool:
    """Whether a variable is the kernel of a layer.

    Keras layers call such a weight `kernel` (Dense, EinsumDense, Conv, DepthwiseConv,
    LocallyConnected, recurrent cells) or `..._kernel` (`depthwise_kernel`, `pointwise_kernel`,
    `recurrent_kernel`), so the last part of the path decides. Biases, `gamma` and `beta` of a
    normalization and `embeddings` are no kernels. The whole package asks this one rule, so a layer
    of your own takes part if it names its kernels so.

    Args:
        variable: A `keras.Variable`, or a backend variable with a `name`.

    Example:
    >>> import keras
    >>> dense = keras.layers.Dense(2)
    >>> dense.build((None, 3))
    >>> [is_kernel(variable) for variable in dense.weights]
    [True, False]
    """
    name = variable_path(variable).rpartition("/")[2]
    return name == "kernel" or name.endswith("_kernel")


def check_pattern(argument: str, pattern) -> None:
    """Raises a ValueError that names the argument unless `pattern` is a regular expression."""
    if not isinstance(pattern, str) or not pattern:
        raise ValueError(
            f"`{argument}` must be given as a non-empty regular expression on a variable's path. "
            f"Received: {argument}={pattern!r}"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"`{argument}` must be a valid regular expression ({error}). "
            f"Received: {argument}={pattern!r}"
        ) from error


def check_penalized(penalized) -> None:
    """Raises a ValueError unless `penalized` is None, a regular expression or a callable."""
    if penalized is not None and not callable(penalized):
        check_pattern("penalized", penalized)


@checked
def choose_penalized(
    variables: Sequence[Any], penalized: str | Callable[[Any], bool] | None = None
) -> list[bool]:
    """Says for each variable whether it is penalized.

    Args:
        variables: The trainable variables.
        penalized: A regular expression, searched for in each variable's path; or a callable that
            takes the variable and returns a bool; or None for the kernels (`is_kernel`).

    Returns:
        One bool per variable.

    Raises:
        ValueError: If no variable is chosen; the message lists the paths.
    """
    if penalized is None:
        chosen = [is_kernel(variable) for variable in variables]
    elif callable(penalized):
        chosen = [bool(penalized(variable)) for variable in variables]
    else:
        chosen = [bool(re.search(penalized, variable_path(variable))) for variable in variables]
    if not any(chosen):
        received = "None (kernels)" if penalized is None else repr(penalized)
        raise ValueError(
            "`penalized` matches none of the trainable variables, so nothing would be penalized. "
            f"Received: penalized={received}. Available paths: {_listed(variables)}"
        )
    return chosen


def match_overrides(
    variables: Sequence[Any], chosen: Sequence[bool], overrides: Mapping[str, Any]
) -> list[str | None]:
    """Finds for each penalized variable the pattern that overrides its penalty.

    Args:
        variables: The trainable variables.
        chosen: For each, whether it is penalized.
        overrides: Maps regular expressions, searched for in the path, to anything.

    Returns:
        One pattern per variable, None where nothing overrides.

    Raises:
        ValueError: If a pattern matches no penalized variable, or two patterns match one variable:
            the outcome must not depend on the order of a mapping, which a JSON file may change.
    """
    candidates = [
        variable for variable, is_chosen in zip(variables, chosen, strict=True) if is_chosen
    ]
    matches: dict[int, str] = {}
    for pattern in overrides:
        found = [v for v in candidates if re.search(pattern, variable_path(v))]
        if not found:
            raise ValueError(
                f"The pattern {pattern!r} in `l1_overrides` matches none of the penalized "
                f"variables. Available paths: {_listed(candidates)}"
            )
        for variable in found:
            other = matches.setdefault(id(variable), pattern)
            if other != pattern:
                raise ValueError(
                    f"Two patterns in `l1_overrides`, {other!r} and {pattern!r}, match the "
                    f"variable {variable_path(variable)!r}: make one of them more specific."
                )
    return [matches.get(id(variable)) for variable in variables]


def _listed(variables: Iterable[Any]) -> str:
    return ", ".join(repr(variable_path(variable)) for variable in variables)
