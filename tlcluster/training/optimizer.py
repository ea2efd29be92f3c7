"""Adam, AdamW and SGD with Nesterov momentum, each in one pass over each variable.

Keras' own make a dozen passes, and `finetuned` has 15 million numbers to update in every step.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import tensorflow as tf
import tf_keras as keras

from tlcluster.experiments import OptimizerName

MOMENTUM = 0.9
"""Of SGD."""


class Fused(keras.optimizers.Optimizer):
    """What is the same for every optimizer of a recipe, around the step of each.

    Weight decay is that of Loshchilov and Hutter, "Decoupled Weight Decay Regularization"
    (2019), algorithms 1 and 2: beside the step, w ← w − lr·λ·w with w from before the step. As in
    PyTorch and Keras, the learning rate takes the place of the paper's schedule multiplier.
    Biases and BatchNorm's gamma and beta do not decay.
    """

    def __init__(
        self,
        learning_rate: float,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
        average: float = 0.0,
        **kwargs: object,
    ) -> None:
        """
        Args:
            learning_rate: lr.
            weight_decay: λ; 0 for none.
            clip_norm: largest norm of all gradients together, after their sum over the workers; 0
                for no limit. Weight decay is not part of it.
            average: share of the average of the weights that a step keeps; 0 keeps no average.
            kwargs: of Keras' optimizer.
        """
        # The operation is a single kernel; XLA has nothing to fuse.
        super().__init__(
            learning_rate=learning_rate,
            global_clipnorm=clip_norm or None,
            jit_compile=False,
            **kwargs,
        )
        self.averages: list[tf.Variable] = []
        """The average of each variable over the steps, if one is kept."""
        self._decay, self._kept = weight_decay, average
        self._shares: Mapping[str, float] = {}
        self._rate: tf.Tensor | None = None

    def slow_down(self, variables: Iterable[tf.Variable], share: float) -> None:
        """Train these variables at a share of the learning rate."""
        self._shares = {**self._shares, **{self._var_key(one): share for one in variables}}

    @contextlib.contextmanager
    def at(self, rate: tf.Tensor) -> Iterator[None]:
        """Use another learning rate while the block is traced.

        Args:
            rate: float32 scalar.
        """
        self._rate = rate
        try:
            yield
        finally:
            self._rate = None

    def build(self, variables: list[tf.Variable]) -> None:
        """Make the optimizer's own variables, once."""
        first = not getattr(self, "_built", False)
        super().build(variables)
        if first and self._kept:
            self.averages = [
                self.add_variable_from_reference(one, "average", initial_value=one)
                for one in variables
            ]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update the variable, what the optimizer keeps of it, and its average, in place."""
        key = self._var_key(variable)
        place = self._index_dict[key]
        rate = tf.cast(self.learning_rate if self._rate is None else self._rate, variable.dtype)
        if self._shares.get(key, 1.0) != 1.0:
            rate = rate * self._shares[key]
        if self._decay and decays(variable):
            # No step reads the variable, so the order of the two does not matter.
            variable.assign_sub(rate * self._decay * variable)
        self.fused_step(gradient, variable, place, rate)
        if self._kept:
            done = tf.cast(self.iterations, variable.dtype)
            # At first the average is over few steps, or it would keep the initial weights for long.
            kept = tf.minimum(tf.cast(self._kept, variable.dtype), (1.0 + done) / (10.0 + done))
            average = self.averages[place]
            average.assign(kept * average + (1.0 - kept) * variable)

    def fused_step(
        self, gradient: tf.Tensor, variable: tf.Variable, place: int, rate: tf.Tensor
    ) -> None:
        """Update the variable without reading it.

        Args:
            gradient: of the variable.
            variable: the one to update.
            place: its number among all variables.
            rate: its learning rate, a scalar of its dtype.
        """
        raise NotImplementedError


class FusedAdam(Fused, keras.optimizers.Adam):
    """Keras' Adam with TensorFlow's single operation for it; with weight decay it is AdamW.

    The Adam step is that of Kingma and Ba, "Adam: A Method for Stochastic Optimization"
    (2015), section 2, in the form given before its section 2.1: ε is added to the root of
    the uncorrected moment.
    """

    def fused_step(
        self, gradient: tf.Tensor, variable: tf.Variable, place: int, rate: tf.Tensor
    ) -> None:
        step = tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )


class FusedNesterov(Fused, keras.optimizers.SGD):
    """Keras' SGD with Nesterov momentum, in TensorFlow's single operation for it."""

    def __init__(self, *args: float, **kwargs: float) -> None:
        super().__init__(*args, **kwargs, momentum=MOMENTUM, nesterov=True)

    def fused_step(
        self, gradient: tf.Tensor, variable: tf.Variable, place: int, rate: tf.Tensor
    ) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[place].handle,
            lr=rate,
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=True,
        )


OPTIMIZERS: Mapping[OptimizerName, type[FusedAdam] | type[FusedNesterov]] = MappingProxyType(
    {"adam": FusedAdam, "sgd-nesterov": FusedNesterov}
)


def decays(variable: tf.Variable) -> bool:
    """Whether weight decay applies: to kernels, which have at least two dimensions.

    Biases and BatchNorm's gamma and beta are vectors.
    """
    return len(variable.shape) > 1
