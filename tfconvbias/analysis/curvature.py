r"""Gradient norm, Hessian-vector products and top Hessian eigenvalues of a model's loss.

The loss is that of a whole data set, summed over batches, so that nothing larger than one batch's
activations is held. The Hessian is never formed: $H v = \nabla_\theta \langle \nabla_\theta L,
v\rangle$ costs two to three gradients.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis import loss_derivatives

Array = np.ndarray
LossLike: TypeAlias = str | keras.losses.Loss | Callable


@dataclasses.dataclass(frozen=True)
class HessianEigenvalues:
    """Top eigenvalues of a Hessian and how well they are known.

    Attributes:
        values: `(k,)`, largest first. NaN where Lanczos didn't converge.
        vectors: `(k, parameters)`, the unit eigenvectors, in the order of `values`.
        residuals: `(k,)`, ‖Hv − λv‖, from one more product each.
        num_products: Hessian-vector products taken.
        converged: Whether all k reached the tolerance.
    """

    values: Array
    vectors: Array
    residuals: Array
    num_products: int
    converged: bool


class LossDerivatives:
    r"""The loss of a model on a data set, as a function of its weights, with derivatives.

    Vectors are flat: the variables one after another, each in row-major order, float64. Batches
    are weighted so that the result equals one large batch, also when the last one is smaller and
    when samples are weighted:

    $$L(\theta) = \frac1N \sum_i w_i\,\ell(f_\theta(x_i), y_i) + \sum \text{penalties}$$

    The compiled functions are kept, and the weights are read at each call, so that one instance
    serves a whole training run.

    Args:
        model: A built Keras model with one output.
        loss: Name, `keras.losses.Loss` or function `(y_true, y_pred) -> values`, as for `compile`.
        x: Inputs: an array, or a list or dictionary of arrays as the model takes them.
        y: Targets, an array.
        sample_weight: Optional `(N,)` array.
        batch_size: Samples per batch.
        training: With the default `False`, BatchNormalization uses its moving statistics and
            Dropout is off. With `True`, batch statistics and Dropout act, with the same random
            numbers at each call; the model's statistics and seeds are put back afterwards.
        include_penalties: Whether the model's regularization losses count.
        variables: Trainable variables to differentiate; all by default.
        jit_compile: TensorFlow only: compile with XLA. JAX always compiles, PyTorch never does.

    Raises:
        ValueError: For an unbuilt model, arrays of unequal lengths, a loss without reduction or a
            variable that is not one of the model's trainable ones.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> x = np.eye(3, dtype="float32")
    >>> derivatives = LossDerivatives(model, "mse", x, np.zeros((3, 1)))
    >>> derivatives.product(np.ones(derivatives.size)).round(3).tolist()
    [1.333, 1.333, 1.333, 4.0]
    """

    def __init__(
        self,
        model: keras.Model,
        loss: LossLike,
        x: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        batch_size: int = 256,
        training: bool = False,
        include_penalties: bool = True,
        variables: Sequence[keras.Variable] | None = None,
        jit_compile: bool = False,
    ):
        if not model.built:
            raise ValueError(f"The model must be built. Received: model={model!r}")
        if int(batch_size) < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        self.model = model
        self.variables = _checked_variables(model, variables)
        # Wide enough for every weight: what scales the batches must not cap their accuracy.
        dtypes = {keras.backend.standardize_dtype(v.dtype) for v in self.variables}
        self._dtype = "float64" if "float64" in dtypes else "float32"
        self.loss = _as_loss(loss, self._dtype)
        self.batch_size = int(batch_size)
        self.training = bool(training)
        arrays = (x, y) if sample_weight is None else (x, y, sample_weight)
        self._arrays = keras.tree.map_structure(np.asarray, arrays)
        lengths = sorted({len(array) for array in keras.tree.flatten(self._arrays)})
        if len(lengths) != 1 or lengths[0] == 0:
            raise ValueError(
                "`x`, `y` and `sample_weight` must hold equally many samples, at least one. "
                f"Received: lengths {lengths}"
            )
        self.num_samples = lengths[0]

        def batch_loss(outputs, penalties, batch):
            _, target, weight, data_scale, penalty_scale = batch
            total = self.loss(target, outputs, sample_weight=weight)
            total = ops.cast(total, self._dtype) * data_scale
            if include_penalties:
                for penalty in penalties:
                    total = total + ops.cast(penalty, self._dtype) * penalty_scale
            return total

        self._derivatives = loss_derivatives.build(
            model, self.variables, batch_loss, self.training, jit_compile
        )

    @property
    def size(self) -> int:
        """Number of parameters: the length of the flat vectors."""
        return sum(int(np.prod(variable.shape)) for variable in self.variables)

    def value(self) -> float:
        """The loss."""
        return float(self._sum(lambda batch: [self._derivatives.value(batch)])[0])

    def gradient(self, rows: Array | None = None) -> Array:
        """The gradient of the loss, flat.

        Args:
            rows: Positions of the samples of a mini-batch, whose gradient estimates that of all;
                `None` for all samples.
        """
        if rows is None:
            return self._sum(self._derivatives.gradient)
        share = len(rows) / self.num_samples
        return self._sum(self._derivatives.gradient, [self._batch(rows, share)]) / share

    def product(self, vector: Array) -> Array:
        """The Hessian of the loss applied to a flat vector."""
        tangents = [
            ops.convert_to_tensor(part, dtype=variable.dtype)
            for part, variable in zip(self.split(vector), self.variables, strict=True)
        ]
        return self._sum(lambda batch: self._derivatives.product(batch, tangents))

    def split(self, vector: Array) -> list[Array]:
        """A flat vector as one array a variable."""
        vector = np.asarray(vector)
        if vector.shape != (self.size,):
            raise ValueError(
                f"`vector` must have shape ({self.size},). Received: vector.shape={vector.shape}"
            )
        sizes = [int(np.prod(variable.shape)) for variable in self.variables]
        parts = np.split(vector, np.cumsum(sizes)[:-1])
        return [part.reshape(v.shape) for part, v in zip(parts, self.variables, strict=True)]

    def top_eigenvalues(
        self,
        k: int = 1,
        *,
        tolerance: float = 1e-4,
        start: Array | None = None,
        max_restarts: int = 100,
        num_lanczos: int | None = None,
        verbose: int = 0,
    ) -> HessianEigenvalues:
        """The k algebraically largest eigenvalues and their vectors."""
        if not 1 <= k <= self.size:
            raise ValueError(
                f"`k` must lie between 1 and the {self.size} parameters. Received: k={k}"
            )
        progress = keras.utils.Progbar(None, unit_name="product") if verbose else None
        count = 0

        def multiply(vector):
            nonlocal count
            count += 1
            result = self.product(np.ravel(vector))
            if not np.isfinite(result).all():
                raise FloatingPointError("A Hessian-vector product is not finite.")
            if progress is not None:
                progress.update(count)
            return result

        if num_lanczos is None:
            num_lanczos = max(2 * k + 1, 20)
        if self.size <= num_lanczos:
            # The Krylov space would be the whole space.
            hessian = np.stack([multiply(row) for row in np.eye(self.size)])
            values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
            converged = True
        else:
            if start is None:
                start = np.random.default_rng(0).standard_normal(self.size)
            values, vectors, converged = _lanczos(
                multiply, self.size, k, tolerance, start, max_restarts, num_lanczos
            )
        order = np.argsort(values)[::-1][:k]
        values, vectors = values[order], vectors[:, order].T
        products = np.stack([multiply(vector) for vector in vectors]) if len(vectors) else vectors
        residuals = np.linalg.norm(products - values[:, None] * vectors, axis=1)
        missing = k - len(values)
        return HessianEigenvalues(
            values=np.pad(values, (0, missing), constant_values=np.nan),
            vectors=np.pad(vectors, ((0, missing), (0, 0)), constant_values=np.nan),
            residuals=np.pad(residuals, (0, missing), constant_values=np.nan),
            num_products=count,
            converged=converged,
        )

    def _batches(self) -> Iterator[tuple]:
        """The batches as tensors, with the scales that make their losses add up."""
        for begin in range(0, self.num_samples, self.batch_size):
            end = min(begin + self.batch_size, self.num_samples)
            yield self._batch(slice(begin, end), (end - begin) / self.num_samples)

    def _batch(self, rows: slice | Array, share: float) -> tuple:
        weights = self._arrays[2] if len(self._arrays) == 3 else None
        tensors = keras.tree.map_structure(
            lambda array: ops.convert_to_tensor(array[rows]), self._arrays
        )
        if self.loss.reduction == "sum":
            data_scale = 1.0
        elif self.loss.reduction == "mean_with_sample_weight" and weights is not None:
            data_scale = float(weights[rows].sum() / weights.sum())
        else:
            data_scale = share
        scales = [ops.convert_to_tensor(scale, self._dtype) for scale in (data_scale, share)]
        return (tensors[0], tensors[1], None if weights is None else tensors[2], *scales)

    def _sum(
        self, function: Callable[[tuple], list], batches: Iterable[tuple] | None = None
    ) -> Array:
        """The sum of a function over the batches, flat and in float64."""
        # With `training=True` a call moves statistics and seeds: each batch starts from the same.
        state = []
        if self.training:
            state = [(v, np.array(v)) for v in self.model.non_trainable_variables]
        total: Any = 0.0
        for batch in self._batches() if batches is None else batches:
            try:
                parts = function(batch)
            finally:
                for variable, value in state:
                    variable.assign(value)
            flat = [np.ravel(ops.convert_to_numpy(part)) for part in parts]
            total = total + np.concatenate(flat).astype("float64")
        return total


def gradient_norm(model: keras.Model, loss: LossLike, x: Any, y: Any, **options: Any) -> float:
    r"""The Euclidean norm $\|\nabla_\theta L\|$ of the loss gradient over a whole set.

    Args:
        model: A built Keras model with one output.
        loss: Name, `keras.losses.Loss` or function, as for `compile`.
        x: Inputs.
        y: Targets.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Reference: d'Ascoli et al. 2019, Figure 3.
    """
    return float(np.linalg.norm(LossDerivatives(model, loss, x, y, **options).gradient()))


def hessian_vector_product(
    model: keras.Model, loss: LossLike, x: Any, y: Any, vector: Any, **options: Any
) -> Any:
    r"""The Hessian of the loss over a whole set, applied to a vector: $\nabla^2_\theta L\,v$.

    Args:
        model: A built Keras model with one output.
        loss: Name, `keras.losses.Loss` or function, as for `compile`.
        x: Inputs.
        y: Targets.
        vector: Flat, `(parameters,)`, or a list with one array a variable. For many products keep
            a `LossDerivatives`, which compiles once.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Returns:
        The product in the form of `vector`: flat, or a list.
    """
    derivatives = LossDerivatives(model, loss, x, y, **options)
    if not isinstance(vector, list | tuple):
        return derivatives.product(vector)
    shapes = [np.shape(part) for part in vector]
    expected = [tuple(variable.shape) for variable in derivatives.variables]
    if shapes != expected:
        raise ValueError(
            f"`vector` must hold arrays of the variables' shapes {expected}. "
            f"Received: shapes {shapes}"
        )
    flat = np.concatenate([np.ravel(part) for part in vector])
    return derivatives.split(derivatives.product(flat))


def top_hessian_eigenvalues(
    model: keras.Model,
    loss: LossLike,
    x: Any,
    y: Any,
    k: int = 1,
    *,
    tolerance: float = 1e-4,
    start: Array | None = None,
    max_restarts: int = 100,
    num_lanczos: int | None = None,
    verbose: int = 0,
    **options: Any,
) -> HessianEigenvalues:
    """The k algebraically largest Hessian eigenvalues of the loss over a whole set, by Lanczos.

    The largest one is the sharpness. Power iteration would find the largest |λ|, which may be a
    negative eigenvalue.

    Args:
        model: A built Keras model with one output.
        loss: Name, `keras.losses.Loss` or function, as for `compile`.
        x: Inputs.
        y: Targets.
        k: Number of eigenvalues.
        tolerance: Relative accuracy at which Lanczos stops. Float32 products carry about 1e-6.
        start: Start vector, flat; by default a fixed pseudo-random one.
        max_restarts: Lanczos restarts after which the search gives up.
        num_lanczos: Vectors held, each of `8 × parameters` bytes; `max(2 k + 1, 20)` by default.
        verbose: 1 shows the number of products taken.
        **options: Those of `LossDerivatives`: `sample_weight`, `batch_size`, `training`, ….

    Returns:
        `HessianEigenvalues`. Without convergence a `RuntimeWarning` is given, `converged` is
        `False` and the missing values are NaN.

    Raises:
        FloatingPointError: If a product is not finite (a diverged model).

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> x, y = np.array([[-1.0], [1.0]]), np.zeros((2, 1))
    >>> top_hessian_eigenvalues(model, "mse", x, y, k=2).values.round(3).tolist()
    [2.0, 2.0]

    Reference: d'Ascoli et al. 2019, Figure 3; `scipy.sparse.linalg.eigsh` does the Lanczos part.
    """
    return LossDerivatives(model, loss, x, y, **options).top_eigenvalues(
        k,
        tolerance=tolerance,
        start=start,
        max_restarts=max_restarts,
        num_lanczos=num_lanczos,
        verbose=verbose,
    )


def _lanczos(multiply, size, k, tolerance, start, max_restarts, num_lanczos):
    """Eigenvalues, eigenvectors in columns, and whether all k converged."""
    from scipy.sparse import linalg

    operator = linalg.LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    try:
        values, vectors = linalg.eigsh(
            operator,
            k=k,
            which="LA",
            v0=start,
            tol=tolerance,
            maxiter=max_restarts,
            ncv=min(num_lanczos, size),
        )
    except linalg.ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
        warnings.warn(
            f"Lanczos found {len(values)} of {k} eigenvalues in {max_restarts} restarts: raise "
            "`max_restarts`, `num_lanczos` or `tolerance`.",
            RuntimeWarning,
            stacklevel=4,
        )
        return values, vectors.reshape(size, len(values)), False
    return values, vectors, True


class _FunctionLoss(keras.losses.Loss):
    """A function `(y_true, y_pred) -> values` with the mean reduction and weights of `compile`."""

    def __init__(self, function, dtype):
        super().__init__(name="function_loss", dtype=dtype)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def _as_loss(loss: LossLike, dtype: str) -> keras.losses.Loss:
    if not isinstance(loss, keras.losses.Loss):
        loss = keras.losses.get(loss)
        if isinstance(loss, keras.losses.Loss) and dtype != keras.config.floatx():
            loss = type(loss).from_config({**loss.get_config(), "dtype": dtype})
    if not isinstance(loss, keras.losses.Loss):
        if not callable(loss):
            raise ValueError(f"`loss` must be one loss, not a structure. Received: loss={loss!r}")
        loss = _FunctionLoss(loss, dtype)
    if loss.reduction in (None, "none"):
        raise ValueError(
            f"`loss` must be reduced to a scalar. Received: reduction={loss.reduction}"
        )
    return loss


def _checked_variables(model, variables):
    if variables is None:
        chosen = list(model.trainable_variables)
    else:
        chosen = list(variables)
        known = {id(variable) for variable in model.trainable_variables}
        unknown = [variable.path for variable in chosen if id(variable) not in known]
        if unknown:
            raise ValueError(
                f"`variables` must be trainable variables of the model. Received: {unknown}"
            )
    if not chosen:
        raise ValueError("There is no trainable variable to differentiate.")
    return chosen
