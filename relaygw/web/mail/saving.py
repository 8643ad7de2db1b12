"""A message, or a part of it, to be saved: never shown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from relaygw.store.protocol import QueueEntry, read_content
from relaygw.web.context import Desk, Find
from relaygw.web.mail.parts import part_response


class Saving:
    """The endpoints of messages as `find` knows them."""

    def __init__(self, desk: Desk, find: Find) -> None:
        self._desk = desk
        self._find = find

    async def show_source(self, request: Request) -> Response:
        """Answer the source as it is stored, chunk by chunk."""

        def start() -> tuple[QueueEntry, Iterator[bytes]]:
            entry = self._find(request)
            chunks = read_content(self._desk.store, entry)
            first = next(chunks, None)
            if first is None:
                raise HTTPException(404)
            return entry, chain((first,), chunks)

        entry, chunks = await self._desk.read(start)
        disposition = f'attachment; filename="{entry.queue_id}.eml"'
        return StreamingResponse(
            chunks,
            media_type="message/rfc822",
            headers={"Content-Disposition": disposition, "Content-Length": str(entry.size_bytes)},
        )

    async def show_part(self, request: Request) -> Response:
        """Answer a part."""

        def read() -> Response | None:
            tree = self._desk.tree(self._find(request))
            return part_response(tree, request.path_params["part_id"])

        response = await self._desk.open(read)
        if response is None:
            raise HTTPException(404)
        return response
