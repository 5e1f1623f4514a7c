"""Why the service could not answer; `cbir_tf.server.http.errors` gives each error its status."""

from __future__ import annotations


class ServiceError(Exception):
    """A request that could not be answered: what is wrong and how to mend it, in one line."""


class InvalidQueryError(ServiceError):
    """A value that is not possible, or a picture that could not be read."""


class PictureTooLargeError(ServiceError):
    """More pixels than the service decodes."""


class ImageNotFoundError(ServiceError):
    """No image of that id, or its file could not be read."""


def no_such_image(id_: str) -> ImageNotFoundError:
    """The error for an id of no image, which may be very long."""
    return ImageNotFoundError(f"{id_[:200]!r}: no image of that id")


class NotPossibleError(ServiceError):
    """Not possible with this run, or with the gallery as it is."""


class UnavailableError(ServiceError):
    """Not possible at the moment; the same request may succeed a second later."""


class NotStoredError(ServiceError):
    """The disk could not be written; nothing has changed."""
