"""Verbs of operators, as the API and the forms of pages carry them out: see operations.verb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request

from relaygw.mail.clock import clock_ms
from relaygw.operations.verb import Asked, Done, Kind, Mistake, Verb
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.page import Problem

_MAX_TYPED = 1000


async def carry_out(
    web: WebContext, verb: Verb, given: Mapping[str, Any], *, actor: str, way: str
) -> Done:
    """Carry a verb out, and wake the workers. Raises Mistake."""
    asked = Asked(store=web.store, settings=web.settings, actor=actor, now_ms=clock_ms(), way=way)
    done = await web.change(lambda: verb.carry_out(given, asked))
    web.wake_workers()
    return done


def problem_of(verb: Verb, mistake: Mistake) -> Problem:
    """Return the answer to a mistake: 404 if the target is not known."""
    is_missing = any(
        parameter.is_target and parameter.name == mistake.name for parameter in verb.parameters
    )
    return Problem(404 if is_missing else 400, mistake.what, expected=mistake.expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbForm:
    """A form that an operator has sent."""

    actor: str
    action: str
    verb: Verb  # that it asks for
    form: FormData

    def typed(self, name: str) -> str:
        """Return the text of a field, "" if there is none."""
        return str(self.form.get(name, ""))[:_MAX_TYPED]

    def fields(self) -> dict[str, Any]:
        """Return the fields that are parameters of the verb; an empty one is not given."""
        given: dict[str, Any] = {}
        for parameter in self.verb.parameters:
            text = self.typed(parameter.name)
            is_given = parameter.name in self.form and parameter.kind is not Kind.FLAG
            if is_given and (text or parameter.takes_empty):
                given[parameter.name] = [text] if parameter.kind is Kind.LIST else text
        return given

    async def carry_out(self, web: WebContext, given: Mapping[str, Any]) -> Done:
        """Carry the verb out. Raises Mistake."""
        return await carry_out(web, self.verb, given, actor=self.actor, way="web")


async def read_form(request: Request, verbs: Mapping[str, Verb]) -> VerbForm:
    """Read a form whose field `action` names one of the verbs. Raises Problem."""
    actor = require(request, Role.OPERATOR).name
    form = await request.form()
    action = str(form.get("action", ""))
    if action not in verbs:
        what = f"action {action[:40]!r} is not known"
        raise Problem(400, what, expected=", ".join(verbs))
    return VerbForm(actor=actor, action=action, verb=verbs[action], form=form)
