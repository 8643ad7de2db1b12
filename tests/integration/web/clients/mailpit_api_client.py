"""Drives mailpit-api-client: python mailpit_api_client.py URL; calls and answers as calls.mjs."""

from __future__ import annotations

import dataclasses
import json
import sys

from mailpit.client.api import API  # type: ignore[import-not-found]


def plain(value: object) -> object:
    is_model = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_model else value


def main() -> None:
    client = API(sys.argv[1], timeout=30)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"value": plain(getattr(client, method)(*arguments))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


main()
