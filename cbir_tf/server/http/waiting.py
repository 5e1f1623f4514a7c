"""Work that is given up when its client no longer waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from cbir_tf.server.http.errors import GIVEN_UP, RequestError

Result = TypeVar("Result")


async def while_wanted(request: Request, work: Awaitable[Result]) -> Result:
    """The result of some work, whose request has arrived.

    Args:
        request: that it is for.
        work: may be cancelled at any time. So no change, which its client may only believe to
            have given up.

    Raises:
        RequestError: the client has closed the connection.
    """
    task = asyncio.current_task()
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        if task is not None:
            task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not has_left or task is None:
            raise
        task.uncancel()
        raise RequestError(GIVEN_UP, "the connection was closed before the answer") from None
    finally:
        watching.cancel()
