"""What boto3 raises, as one line that names the address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cbir_tf.errors import UserError, first_line
from cbir_tf.storage.addresses import address_of, bucket_and_key


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn what boto3 raises into one line naming the address."""
    from botocore import exceptions as boto

    where = address_of(path)
    try:
        yield
    except boto.ClientError as error:
        raise UserError(f"{where}: {_refusal(error, bucket_and_key(path)[0])}") from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise UserError(
            f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        ) from error
    except (boto.ConnectionError, boto.HTTPClientError) as error:
        raise UserError(
            f"{where}: cannot be reached ({first_line(error)}); check the network and "
            "AWS_ENDPOINT_URL"
        ) from error
    except boto.BotoCoreError as error:
        raise UserError(f"{where}: {first_line(error)}; check the settings of AWS") from error


def error_code(error: Any) -> str:
    """What kind of a ClientError it is; empty where S3 does not say."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: Any, bucket: str) -> str:
    """What S3 says, and what may help."""
    code = error_code(error)
    match code:
        case "NoSuchBucket":
            return f"no bucket {bucket!r}; check its name"
        case "404" | "NoSuchKey":
            return "nothing there; check the address"
        case "403" | "AccessDenied" | "AllAccessDisabled":
            return "access denied; check the permissions, and whose credentials are in use"
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken":
            return f"the credentials are refused ({code}); check AWS_ACCESS_KEY_ID or AWS_PROFILE"
    return f"S3 refuses: {first_line(error)}"
