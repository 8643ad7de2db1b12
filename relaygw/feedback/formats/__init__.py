"""The formats of providers, by preset: one file each."""

from __future__ import annotations

from collections.abc import Mapping

from relaygw.feedback.format import Format
from relaygw.feedback.formats import brevo, mailgun, postmark, resend, sendgrid, ses

FORMATS: Mapping[str, Format] = {
    "brevo": brevo.FORMAT,
    "mailgun": mailgun.FORMAT,
    "postmark": postmark.FORMAT,
    "resend": resend.FORMAT,
    "sendgrid": sendgrid.FORMAT,
    "ses": ses.FORMAT,
}
"""By preset; a provider without one of these has no events."""
