"""serve: search over HTTP, with a web page."""

from __future__ import annotations

import argparse
import os
import webbrowser
from contextlib import nullcontext
from pathlib import Path

from cbir_tf.commands.chosen_run import add_folder, add_run, run_and_inputs
from cbir_tf.config import Config
from cbir_tf.config.parsing import describe_keys
from cbir_tf.config.search import Search
from cbir_tf.config.server import Server
from cbir_tf.errors import UserError
from cbir_tf.run import Run
from cbir_tf.server.key import KEY, key_of_environment
from cbir_tf.startup import import_tensorflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument(
        "photos",
        nargs="?",
        metavar="PHOTOS",
        help="a folder of pictures, which is searched by a pretrained model, in place of a run",
    )
    add_run(parser)
    add_folder(parser)
    parser.add_argument(
        "--open", action="store_true", help="open the page in the browser when it is ready"
    )
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free port")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; default: 127.0.0.1, for clients on this machine only",
    )
    parser.set_defaults(overrides=[])
    keys = "\n".join(
        f"  {line}"
        for line in (*describe_keys(Server, "server."), *describe_keys(Search, "search."))
    )
    parser.usage = "%(prog)s (PHOTOS | --run DIR) [--port PORT] [section.key=value ...]"
    parser.epilog = (
        f"If the environment variable {KEY} is set, every request needs this key.\n\n"
        f"keys, in place of those of the run's config.yaml:\n{keys}"
    )


def main(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C; print the address when the service is ready."""
    # Spinning OpenMP threads would take processor time from the encoder; OpenMP reads the variable
    # once, when scikit-learn or FAISS is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    key = key_of_environment()
    photos, overrides = arguments.photos, arguments.overrides
    if photos is not None and "=" in photos and not Path(photos).exists():
        photos, overrides = None, [photos, *overrides]
    run, rest = run_and_inputs(arguments, [photos] if photos is not None else [], least=0)
    if rest:
        raise UserError(f"{rest[0]}: not a folder; give a folder of pictures, or --run DIR")
    config = _config(run, overrides)
    try:
        from cbir_tf.server.http.running import alone, listen, serve
    except ImportError as error:
        raise UserError(f"cbir serve needs {error.name}; pip install 'cbir-tf[serve]'") from None
    from cbir_tf.features.runtime import is_exported

    others = [Run.open(config.search.two_step.run)] if config.search.two_step.run else []
    if not all(is_exported(each.model) for each in (run, *others)):
        import_tensorflow()
    changes = nullcontext() if config.server.read_only else alone(run)
    with changes, listen(arguments.host, arguments.port) as socket:
        if arguments.open:  # the browser waits for the first answer
            host, port = socket.getsockname()[:2]
            webbrowser.open(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        serve(run, config, socket, key)


def _config(run: Run, overrides: list[str]) -> Config:
    """The run's configuration with the overrides of this service.

    Raises:
        UserError: a key of another section, or an impossible value.
    """
    for each in overrides:
        if each.partition("=")[0].partition(".")[0] not in ("server", "search"):
            raise UserError(
                f"{each!r}: cbir serve takes keys of the sections server and search only; leave "
                "it out"
            )
    return Config.load(run.config_file, overrides)
