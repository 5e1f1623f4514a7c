"""The callbacks of `cbir_tf.training` under their short import path, in a checkout alone."""

from cbir_tf.training.callbacks import *  # noqa: F403
from cbir_tf.training.callbacks import __all__  # noqa: F401
