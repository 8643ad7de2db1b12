"""What is told of an import: a verdict on each parameter, warnings, and words of Postfix's own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache

from relaygw_postfix.main_cf import Configuration, Parameter, Service, known_facts
from relaygw_postfix.samples import in_words

TAKEN, TRANSLATED, NOT_NEEDED, REFUSED = VERDICTS = (
    "taken", "translated", "not needed", "refused",
)  # fmt: skip
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "": 1}
_OF_TRANSPORTS = re.compile(r"(.+)_(destination_(concurrency_limit|rate_delay|recipient_limit))")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one parameter."""

    parameter: Parameter
    verdict: str
    why: str

    def __str__(self) -> str:
        where = self.parameter.place
        return f"{where}: {self.parameter.name}: {self.verdict}: {self.why}"


@dataclass
class Report:
    """Gathers what the parts of a translation have to say."""

    warnings: list[str] = field(default_factory=list)
    said: dict[str, tuple[str, str]] = field(default_factory=dict)

    def warn(self, text: str) -> None:
        """Say something once, of classes of addresses in words."""
        text = in_words(text)
        if text not in self.warnings:
            self.warnings.append(text)

    def judge(self, name: str, verdict: str, why: str) -> None:
        """Say of a parameter what its value comes to; overrides the table."""
        self.said[name] = (verdict, why)

    def verdicts(self, configuration: Configuration) -> list[Verdict]:
        """Return the verdict on every parameter that is set, in the order of the files."""
        found = [
            self._verdict(parameter, configuration)
            for parameter in configuration.parameters.values()
        ]
        for service in configuration.services:
            found += [
                self._of_service(override, service, configuration)
                for override in service.overrides.values()
            ]
        found += [_service_verdict(entry) for entry in configuration.services if _is_told(entry)]
        return sorted(
            found,
            key=lambda verdict: (verdict.parameter.place.source, verdict.parameter.place.line or 0),
        )

    def _of_service(
        self, parameter: Parameter, service: Service, configuration: Configuration
    ) -> Verdict:
        name = parameter.name
        if name == "syslog_name":
            return Verdict(parameter, NOT_NEEDED, "the log names the relaygw component")
        if name == "cleanup_service_name" and parameter.value not in ("", "cleanup"):
            why = f"mail of {service.name} passes {parameter.value}, which is not imported"
            return Verdict(parameter, REFUSED, why)
        found = self._verdict(parameter, configuration)
        if found.verdict in (TAKEN, TRANSLATED) and not _is_imported(found, service, configuration):
            why = f"it is set for {service.name} alone, and not imported"
            return Verdict(parameter, REFUSED, why)
        return found

    def _verdict(self, parameter: Parameter, configuration: Configuration) -> Verdict:
        name = parameter.name
        if name in self.said:
            return Verdict(parameter, *self.said[name])
        known = verdict_on(name, configuration)
        if known is not None and known[0] == REFUSED and not parameter.value:
            return Verdict(parameter, NOT_NEEDED, "it is empty")
        if known is None and name in _used_names(configuration):
            return Verdict(parameter, TAKEN, "where other parameters name it")
        if known is None:
            near = difflib.get_close_matches(name, list(_names()), n=1, cutoff=0.85)
            hint = f"is it {near[0]}?" if near else "remove it, or use it as $" + name
            return Verdict(
                parameter, REFUSED, f"Postfix has no such parameter and ignores it; {hint}"
            )
        return Verdict(parameter, *known)


def _is_imported(found: Verdict, service: Service, configuration: Configuration) -> bool:
    """Return whether what is set for one service is looked at there."""
    name = found.parameter.name
    if service.command in ("smtp", "relay"):
        return name.startswith(("smtp_", "fallback_relay"))
    if found.why == "listeners" and service.command in ("smtpd", "postscreen"):
        return service.kind == "inet" and not name.startswith("mynetworks")
    is_of_door = name.startswith("smtpd_") or name == "receive_override_options"
    return service is configuration.door and is_of_door


def verdict_on(name: str, configuration: Configuration | None = None) -> tuple[str, str] | None:
    """Return verdict and reason of a parameter by the table; None: it is unknown."""
    found = _names().get(name)
    if found is not None:
        return found
    for pattern, verdict in _patterns().items():
        if fnmatchcase(name, pattern):
            return verdict
    match = _OF_TRANSPORTS.fullmatch(name)
    if match is not None and configuration is not None and configuration.service(match[1]):
        return TRANSLATED, "limits of providers"
    return None


@cache
def _all_names() -> Mapping[str, tuple[str, str]]:
    return {
        name: (row["verdict"], " ".join(row["why"].split()))
        for row in known_facts()["verdicts"]
        for name in row["names"]
    }


@cache
def _names() -> Mapping[str, tuple[str, str]]:
    return {name: row for name, row in _all_names().items() if "*" not in name}


@cache
def _patterns() -> Mapping[str, tuple[str, str]]:
    return {name: row for name, row in _all_names().items() if "*" in name}


def _used_names(configuration: Configuration) -> set[str]:
    """Return the names that values use: as $name, or as a class of restrictions."""
    texts = [parameter.value for parameter in _everything(configuration)]
    used = {match for text in texts for match in re.findall(r"\$[({]?([A-Za-z0-9_]+)", text)}
    return used | set(configuration.values("smtpd_restriction_classes"))


def _everything(configuration: Configuration) -> Iterator[Parameter]:
    yield from configuration.parameters.values()
    for service in configuration.services:
        yield from service.overrides.values()


_USUAL = {
    "pickup", "cleanup", "qmgr", "oqmgr", "nqmgr", "tlsmgr", "rewrite", "bounce", "defer", "trace",
    "verify", "flush", "proxymap", "proxywrite", "smtp", "relay", "showq", "error", "retry",
    "discard", "local", "virtual", "lmtp", "anvil", "scache", "postlog", "tlsproxy", "dnsblog",
    "qmqp", "628",
}  # fmt: skip
_OLD_PIPES = ("maildrop", "uucp", "ifmail", "bsmtp", "scalemail-backend", "mailman", "cyrus",
              "old-cyrus")  # fmt: skip


def _is_told(service: Service) -> bool:
    return service.name not in _USUAL or service.kind == "inet"


def _service_verdict(service: Service) -> Verdict:
    parameter = Parameter(f"service {service.name} {service.kind}", "", service.place)
    if service.command == "smtpd":
        return Verdict(parameter, TRANSLATED, "a listener")
    if service.command in ("smtp", "relay"):
        return Verdict(parameter, TRANSLATED, "what its transport sets, where a route leads to it")
    if service.command == "pipe" and service.name in _OLD_PIPES:
        return Verdict(parameter, NOT_NEEDED, "an example of the file as it is delivered")
    if service.command == "postscreen":
        return Verdict(parameter, NOT_NEEDED, "relaygw accepts mail from known networks and users")
    why = f"relaygw does not pipe mail to the program {service.command}"
    return Verdict(parameter, REFUSED, why)


def seconds(text: str) -> float | None:
    """Return seconds for a time of Postfix such as `300s`, `1h` or `5d`; None for none."""
    match = re.fullmatch(r"\s*(\d+)\s*([smhdw]?)\s*", text)
    return float(int(match[1]) * _UNITS[match[2]]) if match else None
