"""`python -m cbir_tf` is the cbir program."""

from cbir_tf.startup import script

script()
