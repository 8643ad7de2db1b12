"""Fetches a small file from an address that was checked: no redirects, bounded size and time."""

from __future__ import annotations

import asyncio
import ssl

from relaygw.feedback.certificates import NotFetched

_LIMIT_S = 5.0
_MAX_BYTES = 65_536


async def fetch(url: str) -> bytes:
    """Return what an https address holds; only a 200 is an answer. Raises `NotFetched`."""
    import httpx2  # costs those who need it

    context = await asyncio.to_thread(ssl.create_default_context)
    held = bytearray()
    try:
        async with (
            asyncio.timeout(_LIMIT_S),
            httpx2.AsyncClient(verify=context, timeout=None, follow_redirects=False) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if response.status_code != 200:
                raise NotFetched(f"the answer was {response.status_code}, not 200")
            async for part in response.aiter_raw():
                held += part
                if len(held) > _MAX_BYTES:
                    raise NotFetched(f"it is larger than {_MAX_BYTES} bytes")
    except TimeoutError:
        raise NotFetched(f"no answer within {_LIMIT_S:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise NotFetched(type(error).__name__) from None
    return bytes(held)
