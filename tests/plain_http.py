"""Clients of a gateway in this process, which speaks no TLS."""

from __future__ import annotations

from functools import partial

import httpx2

plain_client = partial(httpx2.AsyncClient, verify=False)
"""A client that reads no authorities: that takes as long as the rest of a short test."""
