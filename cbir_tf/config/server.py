"""The section of the configuration that says how `cbir serve` answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cbir_tf.config.section import Section


class Server(Section):
    hosts: tuple[Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9.:\[\]-]+)$")], ...] = ()
    """Names by which the service may be called, besides localhost and the address it listens on;
    as search.example.org; or "*" for any, where what stands before it checks them."""
    read_only: bool = False
    """Refuse to add and remove images."""
    megabytes: float = Field(16, gt=0, le=256)
    """Largest request."""
    megapixels: float = Field(50, gt=0, le=100)
    """Largest picture."""
    most_neighbours: int = Field(1000, ge=1)
    """Largest k."""
    batch: int = Field(16, ge=1, le=256)
    """Pictures embedded at once, at most: those that came while the ones before were embedded, and
    those that are just being decoded."""
    waiting: int = Field(256, ge=1)
    """Requests worked on at a time; any more are told to come back."""
    rate: float = Field(50, ge=0)
    """Requests a second that a client may go on making; 0: as many as it likes."""
    burst: int = Field(300, ge=1)
    """Requests that a client may make at once, before that."""
    seconds: float = Field(30, gt=0)
    """For a client to send its request, and for those that are running to end after Ctrl-C."""
    thumbnail: int = Field(256, ge=16, le=1024)
    """Pixels of a thumbnail's longer side."""
    mapped: int = Field(5000, ge=5)
    """Most images of the embedding map, the classes taking turns."""
