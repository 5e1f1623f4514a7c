"""S3 by s3fs, which takes endpoint and credentials from the environment as boto3 does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cbir_tf.errors import UserError, first_line
from cbir_tf.storage.addresses import address_of, key_of


def connect(path: Path) -> Any:
    """An s3fs file system without caches, for work on a place, which its UserErrors name."""
    try:
        import s3fs
    except ImportError:
        raise UserError(f"{address_of(path)}: needs s3fs; pip install 'cbir-tf[s3]'") from None
    system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    with reporting(path):
        try:
            system.connect()
        except ValueError as error:  # the endpoint is not a URL
            raise UserError(
                f"{address_of(path)}: {first_line(error)}; check AWS_ENDPOINT_URL"
            ) from error
    return system


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Make one line of an error of S3; other errors, as of a full disk, pass."""
    from botocore import exceptions as aws

    try:
        yield
    except aws.BotoCoreError as error:
        remedy = "check the network, AWS_ENDPOINT_URL and AWS_PROFILE"
        if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
            remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise UserError(f"{address_of(path)}: {first_line(error)}; {remedy}") from error
    except OSError as error:  # s3fs makes one of each answer of S3
        if not isinstance(error.__cause__, aws.ClientError):
            raise
        reason = f"refused by S3 ({first_line(error.__cause__)}); repeat the command later"
        if isinstance(error, PermissionError):
            reason = f"access denied ({first_line(error)}); check the permissions and credentials"
        elif isinstance(error, FileNotFoundError):
            bucket, _, key = key_of(path).partition("/")
            lost = error.__cause__.response["Error"]["Code"] == "NoSuchBucket" or not key
            reason = (
                f"no bucket {bucket!r}; check its name"
                if lost
                else "no longer there; check the address"
            )
        raise UserError(f"{address_of(path)}: {reason}") from error
