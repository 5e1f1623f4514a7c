"""release: pack a run's weights, check, publish, list, fetch and export them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbir_tf.errors import UserError
from cbir_tf.evaluation.table import markdown
from cbir_tf.releases.fetch import fetch, is_fetched
from cbir_tf.releases.registry import (
    Reference,
    Registry,
    checked_name,
    checked_version,
    registry_file,
)
from cbir_tf.retrieval.extraction import split_images
from cbir_tf.retrieval.opening import trained_run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.storage.remote import local

FORMATS = ("savedmodel", "onnx", "litert", "onnx-int8", "litert-int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments, by what is to be done."""
    verbs = parser.add_subparsers(title="what to do", required=True, metavar="WHAT")
    _add_pack(verbs.add_parser("pack", help="write the release of an evaluated run into a folder"))
    _add_publish(verbs.add_parser("publish", help="put a release where others find it"))
    _add_verify(verbs.add_parser("verify", help="check digests and golden embeddings"))
    _add_list(verbs.add_parser("list", help="the releases of the registry"))
    _add_fetch(verbs.add_parser("fetch", help="bring a release to this machine"))
    _add_export(verbs.add_parser("export", help="write the embedder in other formats"))


def main(arguments: argparse.Namespace) -> None:
    """Do what was asked."""
    arguments.do(arguments)


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=path_of, required=True, help="folder of an evaluated run")
    parser.add_argument("--name", required=True, help="of the release: a-z, 0-9, '-', '_', '.'")
    parser.add_argument("--version", required=True, help="as 1.0.0 or 1.0.0-rc.1")
    parser.add_argument(
        "--to",
        type=path_of,
        default=Path("releases"),
        metavar="DIR",
        help="folder that gets one named NAME-VERSION; default: releases",
    )
    parser.add_argument(
        "--licence", default="", metavar="ID", help="of the weights, as Apache-2.0 (SPDX)"
    )
    parser.set_defaults(do=_pack)


def _pack(arguments: argparse.Namespace) -> None:
    reference = Reference(checked_name(arguments.name), checked_version(arguments.version))
    run = trained_run(arguments.run)
    import_tensorflow()
    from cbir_tf.publishing.pack import pack

    local(arguments.to / reference.folder_name, missing_ok=True)  # what is there is not replaced
    folder = pack(run, reference, arguments.to, arguments.licence)
    for each in sorted(folder.iterdir()):
        print(f"{each.stat().st_size:>12,}  {each.name}")
    print(address_of(folder))


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=path_of, metavar="DIR", help="that pack has written")
    parser.add_argument(
        "--to",
        dest="place",
        required=True,
        metavar="PLACE",
        help="a folder, s3://bucket/folder, hf://owner/name or github:owner/repository",
    )
    _add_registry(parser)
    parser.set_defaults(do=_publish)


def _publish(arguments: argparse.Namespace) -> None:
    folder = local(arguments.folder)
    registry = Registry.load(arguments.registry or registry_file())
    import_tensorflow()
    from cbir_tf.publishing.publish import publish
    from cbir_tf.publishing.verify import verify

    verify(folder)
    entry = publish(folder, arguments.place, registry)
    print(f"{entry.reference} is at {entry.address}")
    print(address_of(registry.file))


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="NAME@VERSION|DIR", help="a release, or the folder of one")
    _add_registry(parser)
    parser.set_defaults(do=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    registry = arguments.registry or registry_file()
    digest = None
    if "@" in arguments.what and not Path(arguments.what).exists():
        reference = Reference.of(arguments.what)
        folder = fetch(reference, registry)
        digest = Registry.load(registry).find(reference).sha256
    else:
        folder = local(path_of(arguments.what))
    import_tensorflow()
    from cbir_tf.publishing.verify import verify

    distances = verify(folder, digest)
    rows = [(name, f"{distance:.1e}") for name, distance in distances.items()]
    print(f"{address_of(folder)}: every digest is right; from the golden embedding:", end="\n\n")
    print(markdown(("file", "distance"), rows))


def _add_list(parser: argparse.ArgumentParser) -> None:
    _add_registry(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(do=_list)


def _list(arguments: argparse.Namespace) -> None:
    registry = Registry.load(arguments.registry or registry_file())
    releases: list[dict[str, Any]] = [
        each.model_dump() | {"fetched": is_fetched(each)} for each in registry.entries
    ]
    if arguments.json:
        document = {"registry": address_of(registry.file), "releases": releases}
        print(json.dumps(document, ensure_ascii=False))
        return
    if not releases:
        raise UserError(
            f"{registry.file}: lists no releases; name another registry with --registry or "
            "CBIR_TF_REGISTRY, or publish one"
        )
    rows = [
        (
            f"{each['name']}@{each['version']}",
            each["licence"] or "not stated",
            "yes" if each["fetched"] else "no",
            each["address"],
        )
        for each in releases
    ]
    print(markdown(("release", "licence", "fetched", "address"), rows))


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="NAME@VERSION", help="as list shows it")
    _add_registry(parser)
    parser.set_defaults(do=_fetch)


def _fetch(arguments: argparse.Namespace) -> None:
    print(fetch(Reference.of(arguments.release), arguments.registry))


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=path_of, required=True, help="folder of a trained run")
    parser.add_argument("--to", type=path_of, metavar="DIR", help="default: exports in the run")
    parser.add_argument(
        "--format",
        dest="formats",
        action="append",
        choices=FORMATS,
        help="several times for several; default: all",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(do=_export)


def _export(arguments: argparse.Namespace) -> None:
    run = trained_run(arguments.run)
    if run.config.descriptors:
        raise UserError(f"{run.folder}: has descriptors, which there is nothing to export of")
    import_tensorflow()
    from cbir_tf.publishing.export_report import export_all, format_exports

    to = arguments.to or run.folder / "exports"
    images = split_images(run, "train"), split_images(run, "validation")
    rows = export_all(run, *images, arguments.formats or FORMATS, to)
    if arguments.json:
        print(json.dumps([asdict(each) for each in rows], ensure_ascii=False))
        return
    print(format_exports(rows), end="\n\n")
    print(*(address_of(to / each.file) for each in rows if each.kept and each.file), sep="\n")


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry",
        type=path_of,
        metavar="FILE",
        help="the list of releases; default: $CBIR_TF_REGISTRY, else weights/registry.yaml",
    )
