"""Real stores of which a test does some verbs in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import isfunction
from typing import Any

from relaygw.store import store as stores
from relaygw.store.database import Repository
from relaygw.store.rules import NO_RULES, StoreRules
from relaygw.store.store import Store, open_store


class AlteredStore:
    """A store whose subclass has a method of its own for a verb; `super()` has the real one."""

    def __init__(self, url: str, *, rules: StoreRules = NO_RULES) -> None:
        self.real = open_store(url, rules=rules)
        for field in fields(Store):
            setattr(self, field.name, getattr(self.real, field.name))
        for verb, repository in REPOSITORY_OF.items():
            if getattr(type(self), verb) is not getattr(AlteredStore, verb):
                setattr(getattr(self.real, repository), verb, getattr(self, verb))

    def clock_ms(self) -> int:
        return self.real.clock_ms()

    def close(self) -> None:
        self.real.close()


REPOSITORIES: dict[str, type[Repository]] = {
    field.name: getattr(stores, str(field.type))
    for field in fields(Store)
    if field.name != "database"
}
REPOSITORY_OF = {
    verb: repository
    for repository, kind in REPOSITORIES.items()
    for verb, member in vars(kind).items()
    if isfunction(member) and not verb.startswith("_")
}


def _real(repository: str, verb: str) -> Callable[..., Any]:
    def call(self: AlteredStore, *args: Any, **more: Any) -> Any:
        one: Repository = getattr(self.real, repository)
        return getattr(type(one), verb)(one, *args, **more)

    return call


for _verb, _repository in REPOSITORY_OF.items():
    setattr(AlteredStore, _verb, _real(_repository, _verb))
