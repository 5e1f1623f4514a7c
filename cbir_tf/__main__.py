"""`python -m cbir_tf` is the cbir program."""

from cbir_tf.commands.cli import script

script()
