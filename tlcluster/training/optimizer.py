"""Adam in one pass over each variable.

Keras' own makes a dozen passes, and `finetuned` has 15 million numbers to update after every step.
"""

import tensorflow as tf
import tf_keras as keras


class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam, updated by the one operation that TensorFlow has for it; the same formula.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), section 2, in the
    form that precedes its section 2.1, where ε is added to the root of the uncorrected moment.
    """

    def __init__(self, learning_rate: float) -> None:
        # The operation is one kernel; there is nothing for XLA to fuse.
        super().__init__(learning_rate, jit_compile=False)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update the variable and its two moments in place."""
        place = self._index_dict[self._var_key(variable)]
        first, second = self._momentums[place], self._velocities[place]
        step = tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=first.handle,
            v=second.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )
