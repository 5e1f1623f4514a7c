"""The section `server` of the configuration: limits and settings of `cbir serve`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cbir_tf.config.section import Section


class Server(Section):
    hosts: tuple[Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9.:\[\]-]+)$")], ...] = ()
    """Host names of the service besides localhost and the address it listens on, for example
    search.example.org or *.example.org; "*": any, where a proxy checks them."""
    read_only: bool = False
    """Refuse to add and remove images."""
    max_request_megabytes: float = Field(16, gt=0, le=256)
    """Largest size of a request in megabytes."""
    max_megapixels: float = Field(50, gt=0, le=100)
    """Largest size of an image in megapixels."""
    max_neighbours: int = Field(1000, ge=1)
    """Largest k of a search."""
    max_batch_size: int = Field(16, ge=1, le=256)
    """Largest number of images encoded, and of queries searched, in one batch; a batch takes the
    requests that arrived during the previous one."""
    max_in_flight: int = Field(256, ge=1)
    """Largest number of requests worked on at one time, counted once they have arrived; further
    requests get status 503."""
    max_connections: int = Field(512, ge=1)
    """Largest number of connections; a further one takes the place of the one that has waited
    longest for its client to send."""
    max_pending_megabytes: float = Field(256, gt=0)
    """Largest size in megabytes of all requests that arrive or are worked on at one time; further
    ones get status 503."""
    client_share: float = Field(0.25, gt=0, le=1)
    """Share of the connections, of the requests and of their megabytes at one time that one client
    may have; 1: all, where a proxy makes all clients one."""
    rate: float = Field(50, ge=0)
    """Average number of requests per second of one client; 0: no limit."""
    burst: int = Field(300, ge=1)
    """Largest number of requests of one client within burst / rate seconds."""
    request_timeout: float = Field(30, gt=0)
    """Seconds for a client to send its request, for a picture to wait for its turn, and for running
    requests to end after Ctrl-C."""
    idle_timeout: float = Field(15, gt=0)
    """Seconds that a connection may wait for a request, a request's head may take to arrive, and a
    client may read nothing of its answer."""
    decode_timeout: float = Field(5, gt=0)
    """Seconds to decode one picture; then it is refused."""
    thumbnail_size: int = Field(256, ge=16, le=1024)
    """Longer side of a thumbnail in pixels."""
    map_max_images: int = Field(5000, ge=5)
    """Largest number of images on the embedding map, the same number of every class."""
