"""The ports on which mail services take submissions, the likeliest first."""

from __future__ import annotations

USUAL = (587, 2525, 465, 25, 2587, 2465, 8025, 8465, 443)
IMPLICIT_TLS = (465, 2465, 8465, 443)  # TLS from the first byte; the others begin in clear
