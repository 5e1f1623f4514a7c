"""The section `server` of the configuration: limits and settings of `cbir serve`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cbir_tf.config.section import Section


class Server(Section):
    hosts: tuple[Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9.:\[\]-]+)$")], ...] = ()
    """Host names of the service, besides localhost and the address it listens on: as
    search.example.org, or *.example.org; "*" for any, where a proxy checks them."""
    read_only: bool = False
    """Refuse to add and remove images."""
    max_request_megabytes: float = Field(16, gt=0, le=256)
    """Largest request."""
    max_megapixels: float = Field(50, gt=0, le=100)
    """Largest picture."""
    max_neighbours: int = Field(1000, ge=1)
    """Largest k."""
    max_batch_size: int = Field(16, ge=1, le=256)
    """Pictures encoded, and queries searched, in one batch: those that arrived while the batch
    before was worked on."""
    max_in_flight: int = Field(256, ge=1)
    """Requests worked on at a time; further ones are answered with 503."""
    rate: float = Field(50, ge=0)
    """Requests a second of one client, on average; 0: no limit."""
    burst: int = Field(300, ge=1)
    """Requests of one client in any burst / rate seconds."""
    request_timeout: float = Field(30, gt=0)
    """Seconds for a client to send its request, and for running requests to end after Ctrl-C."""
    thumbnail_size: int = Field(256, ge=16, le=1024)
    """Pixels of a thumbnail's longer side."""
    map_max_images: int = Field(5000, ge=5)
    """Images laid out on the embedding map, at most; the same number of every class."""
