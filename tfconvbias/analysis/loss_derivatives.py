r"""A model's loss over a whole data set as a function of its weights, with its derivatives.

The loss is summed over batches, so that nothing larger than one batch's activations is held. No
curvature matrix is ever formed: $H v = \nabla_\theta \langle \nabla_\theta L, v\rangle$ costs two
to three gradients.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from tfconvbias.analysis import backend_derivatives
from tfconvbias.analysis.loss_batches import Batch, LossBatches
from tfconvbias.analysis.output_losses import OutputLosses
from tfconvbias.arguments import PositiveInt, check, checked

Array = np.ndarray
Curvature = Literal["hessian", "ggn", "fisher"]
CURVATURES = ("hessian", "ggn", "fisher")


@checked
class LossDerivatives:
    r"""The loss of a model on a data set, as a function of its weights, with derivatives.

    Vectors are flat: the variables one after another, each in row-major order, float64. Batches
    are weighted so that the result equals one large batch, also when the last one is smaller and
    when samples are weighted:

    $$L(\theta) = \frac1N \sum_i w_i\,\ell(f_\theta(x_i), y_i) + \sum \text{penalties}$$

    The compiled functions are kept, and the weights are read at each call, so that one instance
    serves a whole training run.

    Args:
        model: A built Keras model, with one output or a list or dictionary of several.
        x: Inputs: an array, or a list or dictionary of arrays as the model takes them. Or a data
            set that yields `(x, y)` or `(x, y, sample_weight)` in batches: a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or another object that can be iterated again and again. It must
            yield the same samples at each pass.
        y: Targets, in the structure of the outputs; `None` for a data set.
        loss: Name, `keras.losses.Loss` or function `(y_true, y_pred) -> values`, or a list or
            dictionary with one for each output, as for `compile`. The compiled loss by default.
        loss_weights: Factors of several losses, as for `compile`.
        sample_weight: Optional `(N,)` array, or one for each output.
        batch_size: Samples per batch of arrays; 256 by default. A data set has its own.
        training: With the default `False`, BatchNormalization uses its moving statistics and
            Dropout is off. With `True`, batch statistics and Dropout act, with the same random
            numbers at each call; the model's statistics and seeds are put back afterwards.
        include_penalties: Whether the model's regularization losses count.
        variables: Trainable variables to differentiate; all by default.
        jit_compile: TensorFlow only: compile with XLA. JAX always compiles, PyTorch never does.

    Raises:
        ValueError: For an unbuilt model, arrays of unequal lengths, a data set without end, a loss
            without reduction or a variable that is not one of the model's trainable ones.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> x = np.eye(3, dtype="float32")
    >>> derivatives = LossDerivatives(model, x, np.zeros((3, 1)), "mse")
    >>> derivatives.product(np.ones(derivatives.size)).round(3).tolist()
    [1.333, 1.333, 1.333, 4.0]
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        loss: Any = None,
        *,
        loss_weights: Any = None,
        sample_weight: Any = None,
        batch_size: PositiveInt | None = None,
        training: bool = False,
        include_penalties: bool = True,
        variables: Sequence[keras.Variable] | None = None,
        jit_compile: bool = False,
    ):
        if not model.built:
            raise ValueError(f"The model must be built. Received: model={model!r}")
        self.model = model
        self.variables = _checked_variables(model, variables)
        # Wide enough for every weight: what scales the batches must not cap their accuracy.
        dtypes = {keras.backend.standardize_dtype(v.dtype) for v in self.variables}
        self.dtype = "float64" if "float64" in dtypes else "float32"
        self._losses = OutputLosses(model, loss, loss_weights, self.dtype)
        self._batches = LossBatches(x, y, sample_weight, batch_size, self.dtype)
        self.training = bool(training)

        def penalty(penalties, batch):
            total = ops.zeros((), self.dtype)
            if include_penalties:
                for one in penalties:
                    total = total + ops.cast(one, self.dtype) * batch.share
            return total

        self._derivatives = backend_derivatives.build(
            model, self.variables, self._losses, penalty, self.training, jit_compile
        )

    @property
    def size(self) -> int:
        """Number of parameters: the length of the flat vectors."""
        return sum(int(np.prod(variable.shape)) for variable in self.variables)

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return self._batches.num_samples

    def value(self) -> float:
        """The loss."""
        return float(self._sum(lambda batch: [self._derivatives.value(batch)])[0])

    def gradient(self, rows: Array | None = None) -> Array:
        """The gradient of the loss, flat.

        Args:
            rows: Positions of the samples of a mini-batch, whose gradient estimates that of all;
                `None` for all samples. Not for a data set.
        """
        if rows is None:
            return self._sum(self._derivatives.gradient)
        share = len(rows) / self.num_samples
        return self._sum(self._derivatives.gradient, [self._batches.rows(rows)]) / share

    def product(self, vector: Array, curvature: Curvature = "hessian") -> Array:
        r"""A curvature matrix of the loss, applied to a flat vector.

        - `"hessian"`: $\nabla^2_\theta L$.
        - `"ggn"`: the generalized Gauss–Newton matrix $\frac1N \sum_i J_i^\top H_i J_i$, with $J_i$
          the outputs' derivative by the weights and $H_i$ the loss's Hessian by the outputs. It
          is what remains of the Hessian for a model that is linear in its weights, and has no
          negative eigenvalue where the loss is convex in the outputs.
        - `"fisher"`: Fisher's information, the mean of $\nabla \ell \nabla \ell^\top$ over the
          targets that the model itself predicts, for losses that are negative log-likelihoods.
          It equals `"ggn"` for the mean squared error and for crossentropies of logits.

        Penalties on the weights enter all three with their own Hessian.

        Args:
            vector: `(size,)`.
            curvature: Which matrix.

        Raises:
            ValueError: For a vector of another length, an unknown matrix, or a loss that is no
                likelihood for `"fisher"`.

        Reference: Schraudolph 2002, "Fast Curvature Matrix-Vector Products for Second-Order
        Gradient Descent"; Martens 2020, "New Insights and Perspectives on the Natural Gradient
        Method".
        """
        check("curvature", curvature, Curvature)
        tangents, function = self._tangents(vector), getattr(self._derivatives, curvature)
        return self._sum(lambda batch: function(batch, tangents))

    def fixed_product(self, curvature: Curvature = "hessian") -> Callable[[Array], Array]:
        """`product` as a function of the vector alone, at the weights of this moment.

        For many products at the same weights: on PyTorch the graph of the gradient of a single
        batch is then made once and held as long as the function lives.
        """
        check("curvature", curvature, Curvature)
        at = self._derivatives.hessian_at
        if curvature != "hessian" or at is None or self.training or self._batches.num_batches > 1:
            return lambda vector: self.product(vector, curvature)
        batches = list(self._batches)
        held = at(batches[0])
        return lambda vector: self._sum(lambda _: held(self._tangents(vector)), batches)

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

    def _tangents(self, vector: Array) -> list:
        return [
            ops.convert_to_tensor(part, dtype=variable.dtype)
            for part, variable in zip(self.split(vector), self.variables, strict=True)
        ]

    def _sum(
        self, function: Callable[[Batch], list], batches: Iterable[Batch] | None = None
    ) -> Array:
        """The sum of a function over the batches, flat and in float64."""
        # With `training=True` a call moves statistics and seeds: each batch starts from the same.
        state = []
        if self.training:
            state = [(v, np.array(v)) for v in self.model.non_trainable_variables]
        total: Any = 0.0
        for batch in self._batches if batches is None else batches:
            try:
                parts = function(batch)
            finally:
                for variable, value in state:
                    variable.assign(value)
            flat = [np.ravel(ops.convert_to_numpy(part)) for part in parts]
            total = total + np.concatenate(flat).astype("float64")
        return total


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
