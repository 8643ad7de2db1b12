"""Transactions of the store: what they are for, and what their errors become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

from sqlalchemy import Connection

from relaygw.errors import StoreUnavailable


class Write(Enum):
    """What a write transaction is for."""

    SYNCED = auto()  # durable when it is committed
    UNSYNCED = auto()  # durable with the next one that is synced
    LEASE = auto()  # durable as long as the worker lives that it is for
    BULK = auto()  # synced; after everyone else


class Transactions(ABC):
    """A database to read and to write; its subclasses know how that begins there."""

    @abstractmethod
    def _reading(self) -> Any:
        """Context manager: a connection in a read transaction."""

    @abstractmethod
    def _writing(self, kind: Write = Write.SYNCED) -> Any:
        """Context manager: a connection in a write transaction, committed on exit."""

    @abstractmethod
    def _translate(self, error: Exception) -> Exception:
        """Turn a driver's error into one of relaygw.errors."""

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._translated(), self._reading() as connection:
            yield connection

    @contextmanager
    def _write(self, kind: Write = Write.SYNCED) -> Iterator[Connection]:
        with self._translated(), self._writing(kind) as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            raise
        except Exception as error:
            raise self._translate(error) from error
