"""Adam and AdamW in one pass over each variable.

Keras' own makes a dozen passes, and `finetuned` has 15 million numbers to update in every step.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf
import tf_keras as keras


class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam with TensorFlow's single operation for it, and with decoupled weight decay.

    The Adam step is that of Kingma and Ba, "Adam: A Method for Stochastic Optimization"
    (2015), section 2, in the form given before its section 2.1: ε is added to the root of
    the uncorrected moment.

    Weight decay is that of Loshchilov and Hutter, "Decoupled Weight Decay Regularization"
    (2019), algorithm 2: beside Adam's step, w ← w − lr·λ·w with w from before the step. As in
    PyTorch and Keras, the learning rate takes the place of the paper's schedule multiplier.
    Biases and BatchNorm's gamma and beta do not decay.
    """

    def __init__(
        self, learning_rate: float, weight_decay: float = 0.0, clip_norm: float = 0.0
    ) -> None:
        """
        Args:
            learning_rate: lr.
            weight_decay: λ; 0 gives plain Adam.
            clip_norm: largest norm of all gradients together, after their sum over the workers; 0
                for no limit. Weight decay is not part of it.
        """
        # The operation is a single kernel; XLA has nothing to fuse.
        super().__init__(learning_rate, global_clipnorm=clip_norm or None, jit_compile=False)
        self._decay = weight_decay
        self._rate: tf.Tensor | None = None

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

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update the variable and its two moments in place."""
        place = self._index_dict[self._var_key(variable)]
        first, second = self._momentums[place], self._velocities[place]
        step = tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        rate = self.learning_rate if self._rate is None else self._rate
        learning_rate = tf.cast(rate, variable.dtype)
        if self._decay and decays(variable):
            # Adam's step does not read the variable, so the order of the two does not matter.
            variable.assign_sub(learning_rate * self._decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=first.handle,
            v=second.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=learning_rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )


def decays(variable: tf.Variable) -> bool:
    """Whether weight decay applies: to kernels, which have at least two dimensions.

    Biases and BatchNorm's gamma and beta are vectors.
    """
    return len(variable.shape) > 1
