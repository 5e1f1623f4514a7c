"""What is in deploy/, as far as it can be checked without a container engine or AWS."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def event(method: str, path: str, body: bytes = b"", **headers: str) -> dict:
    """As a function URL sends it (payload format 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "abc.lambda-url.eu-west-1.on.aws", **headers},
        "requestContext": {
            "http": {
                "method": method,
                "path": path,
                "sourceIp": "192.0.2.7",
                "protocol": "HTTP/1.1",
            },
            "domainName": "abc.lambda-url.eu-west-1.on.aws",
            "stage": "$default",
        },
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def test_lambda_answers_the_same_api(trained_folder, photos, monkeypatch):
    pytest.importorskip("mangum")
    from cbir_tf.server.http.lambda_handler import handler

    monkeypatch.setitem(os.environ, "RUN", str(trained_folder))
    monkeypatch.setitem(os.environ, "CBIR_TF_API_KEY", "a secret")
    key = {"x-api-key": "a secret", "content-type": "application/json"}
    picture = (photos / "red" / "02.jpg").read_bytes()
    body = json.dumps({"base64image": base64.b64encode(picture).decode(), "k": 2}).encode()

    assert handler(event("POST", "/search", body), None)["statusCode"] == 401
    answer = handler(event("POST", "/search", body, **key), None)
    assert answer["statusCode"] == 200
    neighbours = json.loads(answer["body"])["neighbours"]
    assert neighbours[0]["id"] == "red/02.jpg" and len(neighbours) == 2
    shown = handler(event("GET", "/images/red/02.jpg", **key), None)
    assert shown["isBase64Encoded"] and base64.b64decode(shown["body"]) == picture
    assert handler(event("POST", "/images", body, **key), None)["statusCode"] == 403


@pytest.mark.slow
def test_the_lambda_template_passes_its_linter():
    lint = pytest.importorskip("cfnlint.api")
    text = (DEPLOY / "lambda" / "template.yaml").read_text(encoding="utf-8")
    assert lint.lint(text) == []


def test_the_service_is_published_on_loopback_only_and_drains():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["search"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert int(service["stop_grace_period"].rstrip("s")) > 30  # server.request_timeout
    container = (DEPLOY.parent / service["build"]["dockerfile"]).read_text(encoding="utf-8")
    assert "STOPSIGNAL SIGINT" in container and re.search(r"^USER \d+", container, re.MULTILINE)


@pytest.mark.parametrize("name", ["Containerfile", "lambda/Containerfile"])
def test_container_files_copy_existing_files(name):
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert source == "runs/served" or (DEPLOY.parent / source).exists(), source
    project = (DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"/src\[([\w,]+)\]", text)[0].split(","):
        assert re.search(rf"^{extra} = ", project, re.MULTILINE)
