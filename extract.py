"""`python extract.py --help`: the verb extract of the cbir command line."""

from cbir_tf.commands.cli import main

if __name__ == "__main__":
    raise SystemExit(main(verb="extract"))
