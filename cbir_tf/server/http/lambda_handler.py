"""The service in AWS Lambda: the same API behind a function URL or API Gateway.

The environment has RUN, the run's folder in the image, and CBIR_TF_API_KEY. The disk of a function
is read only but for /tmp, and nothing there is kept: images cannot be added.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mangum import Mangum

from cbir_tf.config import Config
from cbir_tf.run import Run
from cbir_tf.server.http.app import make_app
from cbir_tf.server.http.logs import log_json_lines
from cbir_tf.server.key import key_of_environment
from cbir_tf.server.pipeline.service import Service

SETTINGS = [
    'server.hosts=["*"]',
    "server.read_only=true",
    "server.rate=0",
    "server.max_request_megabytes=4.5",
]
"""AWS checks host names and limits rates, and passes on at most 6 MB in base64."""
LEFT_OUT = ("plots", "checkpoints", "logs")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one event."""
    answer: dict[str, Any] = _application()(event, context)
    return answer


@cache
def _application() -> Mangum:
    """Opened with the first event, for all events of this instance."""
    log_json_lines()
    key = key_of_environment()
    # SQLite writes beside the file it reads.
    folder = Path(tempfile.mkdtemp()) / "run"
    shutil.copytree(os.environ["RUN"], folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    run = Run.open(folder)
    service = Service(run, Config.load(run.config_file, SETTINGS))
    return Mangum(make_app(service, key), lifespan="off")
