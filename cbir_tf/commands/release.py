"""release: pack a run's weights, check, publish, list, fetch and export them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from cbir_tf.publishing.listing import format_releases, release_records
from cbir_tf.releases.fetch import fetch, locate
from cbir_tf.releases.registry import Reference, Registry, registry_to_write
from cbir_tf.retrieval.opening import trained_run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.storage.remote import local

FORMATS = ("savedmodel", "onnx", "litert", "onnx-int8", "litert-int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one parser for each action, with its arguments."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")

    pack = actions.add_parser("pack", help="write the release of an evaluated run into a folder")
    pack.set_defaults(do=_pack)
    pack.add_argument("--run", type=path_of, required=True, help="folder of an evaluated run")
    pack.add_argument("--name", required=True, help="name of the release: a-z, 0-9, '-', '_', '.'")
    pack.add_argument("--version", required=True, help="1.0.0 or 1.0.0-rc.1")
    pack.add_argument(
        "--to",
        type=path_of,
        default=Path("releases"),
        metavar="DIR",
        help="folder in which the folder NAME-VERSION is made; default: releases",
    )
    pack.add_argument("--licence", default="", metavar="ID", help="SPDX identifier: Apache-2.0")

    publish = actions.add_parser("publish", help="upload a release and list it in the registry")
    publish.set_defaults(do=_publish)
    publish.add_argument("folder", type=path_of, metavar="DIR", help="folder written by pack")
    publish.add_argument(
        "--to",
        dest="place",
        required=True,
        metavar="PLACE",
        help="a folder, s3://bucket/folder, hf://owner/name or github:owner/repository",
    )

    verify = actions.add_parser("verify", help="check digests and golden embeddings")
    verify.set_defaults(do=_verify)
    verify.add_argument("what", metavar="NAME@VERSION|DIR", help="a release, or its folder")

    list_ = actions.add_parser("list", help="list the releases in the registry")
    list_.set_defaults(do=_list)

    fetch_ = actions.add_parser("fetch", help="download a release to this machine")
    fetch_.set_defaults(do=_fetch)
    fetch_.add_argument("release", metavar="NAME@VERSION", help="as list shows it")

    export = actions.add_parser("export", help="write the embedder in other formats")
    export.set_defaults(do=_export)
    export.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    export.add_argument("--to", type=path_of, metavar="DIR", help="default: exports in the run")
    export.add_argument(
        "--format",
        dest="formats",
        action="append",
        choices=FORMATS,
        help="may be repeated; default: all",
    )

    for action in (publish, verify, list_, fetch_):
        action.add_argument(
            "--registry",
            type=path_of,
            metavar="FILE",
            help="list of releases; default: $CBIR_TF_REGISTRY, otherwise weights/registry.yaml",
        )
    for action in (list_, export):
        action.add_argument("--json", action="store_true", help="print one JSON document")


def main(arguments: argparse.Namespace) -> None:
    """Run the chosen action."""
    arguments.do(arguments)


def _pack(arguments: argparse.Namespace) -> None:
    reference = Reference.of(f"{arguments.name}@{arguments.version}")
    run = trained_run(arguments.run)
    import_tensorflow()
    from cbir_tf.publishing.pack import pack

    folder = pack(run, reference, arguments.to, arguments.licence)
    for each in sorted(folder.iterdir()):
        print(f"{each.stat().st_size:>12,}  {each.name}")
    print(address_of(folder))


def _publish(arguments: argparse.Namespace) -> None:
    folder = local(arguments.folder)
    registry = Registry.load(arguments.registry or registry_to_write())
    import_tensorflow()
    from cbir_tf.publishing.publish import publish
    from cbir_tf.publishing.verify import verify

    verify(folder)
    entry = publish(folder, arguments.place, registry)
    print(f"{entry.reference} is at {entry.address}")
    print(address_of(registry.file))


def _verify(arguments: argparse.Namespace) -> None:
    folder, digest = locate(arguments.what, arguments.registry)
    import_tensorflow()
    from cbir_tf.publishing.verify import format_distances, verify

    distances = verify(folder, digest)
    print(f"{address_of(folder)}: all digests are right; distance from the golden embedding:\n")
    print(format_distances(distances))


def _list(arguments: argparse.Namespace) -> None:
    registry = Registry.load(arguments.registry)
    if arguments.json:
        document = {"registry": address_of(registry.file), "releases": release_records(registry)}
        print(json.dumps(document, ensure_ascii=False))
    else:
        print(format_releases(registry))


def _fetch(arguments: argparse.Namespace) -> None:
    print(fetch(Reference.of(arguments.release), arguments.registry))


def _export(arguments: argparse.Namespace) -> None:
    run = trained_run(arguments.run)
    import_tensorflow()
    from cbir_tf.publishing.export_report import export_run, format_exports

    to = arguments.to or run.folder / "exports"
    rows = export_run(run, arguments.formats or FORMATS, to)
    if arguments.json:
        print(json.dumps([asdict(each) for each in rows], ensure_ascii=False))
    else:
        print(format_exports(rows), end="\n\n")
        print(*(address_of(to / each.file) for each in rows if each.kept and each.file), sep="\n")
