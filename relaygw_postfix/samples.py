"""An address that stands for each class of addresses, and the words for it in what is shown.

A class is written as relaygw writes it: an address, `user@*`, `@domain`, `.domain` for what lies
below a domain, or "" for the rest.
"""

from __future__ import annotations

import re

REST = ""
SAMPLE = "relaygw-sample"
PROBES = (f"{SAMPLE}@{SAMPLE}.invalid", f"7@{SAMPLE}-7.example", f"Q.x@{SAMPLE}.sub.example")
"""Addresses so different that what is made of all is made of every one."""
ANYBODY = "anybody"
_OF_CLASS = re.compile(rf"(?:{SAMPLE}@)?{SAMPLE}(?=\.)|{SAMPLE}(?=@)")


def sample(address_class: str) -> str:
    """Return an address of a class."""
    if address_class == REST:
        return PROBES[0]
    if address_class.startswith("@"):
        return f"{SAMPLE}{address_class}"
    if address_class.endswith("@*"):
        return f"{address_class[:-1]}{SAMPLE}.invalid"
    return f"{SAMPLE}@{SAMPLE}{address_class}" if address_class.startswith(".") else address_class


def in_words(text: str) -> str:
    """Return a text with the classes in the place of their samples, `anybody` for the rest."""
    for probe in PROBES:
        domain = probe.partition("@")[2]
        text = text.replace(probe, ANYBODY).replace(f"@{domain}", "@*")
        text = text.replace(domain, "anybody's domain")
    return _OF_CLASS.sub("", text).replace(SAMPLE, ANYBODY)
