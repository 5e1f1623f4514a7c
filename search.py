"""`python search.py --help`: the verb search of the cbir command line."""

from cbir_tf.commands.cli import program

if __name__ == "__main__":
    raise SystemExit(program("search"))
