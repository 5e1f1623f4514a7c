"""The callbacks of `cbir_tf.training` under a short import path, in a checkout only."""

from cbir_tf.training.callbacks import *  # noqa: F403
from cbir_tf.training.callbacks import __all__  # noqa: F401
