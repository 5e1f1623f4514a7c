"""`python train.py --help`: the verb train of the cbir command line."""

from cbir_tf.commands.cli import program

if __name__ == "__main__":
    raise SystemExit(program("train"))
