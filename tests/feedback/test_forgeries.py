"""No forged, stale, unsigned or altered post is believed; the certificate is pinned and kept."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from relaygw.feedback.certificates import Certificates, is_certificate_url, is_subscribe_url
from relaygw.feedback.format import Refused
from relaygw.feedback.formats import FORMATS
from relaygw.mail.clock import clock_ms
from tests.feedback.documented import Sent, examples
from tests.feedback.forgeries import FORGERIES, Forgery, stolen
from tests.feedback.signers import SIGNERS, Mailgun, Ses, certificate, rsa_key, signer_of
from tests.tables import each_of

SHOWN = {200, 400, 401, 403, 406, 429, 503}
DAY_MS = 86_400_000


def test_they_are_many() -> None:
    assert len(FORGERIES) >= 200
    assert len({str(each) for each in FORGERIES}) == len(FORGERIES)
    assert min(Counter(each.preset for each in FORGERIES).values()) >= 40


@each_of("forgery", FORGERIES, ids=str)
async def test_it_has_no_effect(forgery: Forgery) -> None:
    signer, now_ms, form = signer_of(forgery.preset), clock_ms(), FORMATS[forgery.preset]
    signed = forgery.make(signer, Sent(), now_ms)
    fetched = list(getattr(signer, "fetched", ()))
    try:
        verified = await form.verify(signed.post(now_ms), signer.trust)
    except Refused as refused:
        assert refused.status in SHOWN and refused.reason
        assert forgery.preset != "postmark" or refused.status != 403
        assert signer.secret == "" or signer.secret not in str(refused)
    else:
        assert not verified.is_events or form.read(signed.body) == []
        assert verified.confirm_url is None
    urls = [*fetched, *getattr(signer, "fetched", ())]
    assert set(urls) <= {getattr(signer, "certificate_url", "")}


async def test_a_wrong_secret_is_answered_so_that_the_provider_tries_again() -> None:
    statuses = {}
    for preset in SIGNERS:
        signer, other = signer_of(preset), signer_of(preset)
        signed = other.sign([examples(preset)[0].make(Sent())], clock_ms())
        wrong = replace(signer.trust, secret="whsec_" + "QUJD" * 8)
        with pytest.raises(Refused) as refused:
            await FORMATS[preset].verify(signed.post(clock_ms()), wrong)
        statuses[preset] = refused.value.status
    assert statuses == {
        "ses": 401,  # it sends a login only after such an answer
        "sendgrid": 401,
        "mailgun": 401,
        "postmark": 401,
        "resend": 401,
        "brevo": 429,
    }


@pytest.mark.parametrize("preset", sorted(SIGNERS))
async def test_without_a_secret_nothing_is_believed(preset: str) -> None:
    signer = signer_of(preset)
    signed = signer.sign([examples(preset)[0].make(Sent())], clock_ms())
    trust = replace(signer.trust, secret="", topics=frozenset())
    with pytest.raises(Refused):
        await FORMATS[preset].verify(signed.post(clock_ms()), trust)


async def test_a_triple_of_mailgun_counts_once() -> None:
    signer, form = Mailgun(), FORMATS["mailgun"]
    genuine = signer.sign([examples("mailgun")[0].make(Sent())], clock_ms())
    first = await form.verify(genuine.post(clock_ms()), signer.trust)
    assert first.once and first.once_until_ms >= clock_ms() + 8 * 3_600_000
    for signed in stolen(signer, genuine, Sent(address="eve@cust.test")):
        verified = await form.verify(signed.post(clock_ms()), signer.trust)
        assert verified.once == first.once
    with pytest.raises(Refused):  # what is forgotten is stale by then
        await form.verify(genuine.post(first.once_until_ms + 1), signer.trust)


@each_of(
    "preset, ago_ms",
    [("ses", 3_700_000), ("sendgrid", 24 * 3_600_000), ("mailgun", 8 * 3_600_000)],
)
async def test_what_the_provider_may_still_try_is_not_stale(preset: str, ago_ms: int) -> None:
    signer, now_ms = signer_of(preset), clock_ms()
    signed = signer.sign([examples(preset)[0].make(Sent())], now_ms - ago_ms)
    await FORMATS[preset].verify(signed.post(now_ms), signer.trust)


@each_of("form", ["bearer", "header", "basic in small letters", "spaces"])
async def test_a_login_may_come_in_three_forms(form: str) -> None:
    for preset in ("postmark", "brevo"):
        signer = signer_of(preset)
        signed = signer.sign([examples(preset)[0].make(Sent())], clock_ms())
        basic = signed.headers["Authorization"]
        headers = {
            "bearer": {"Authorization": f"Bearer {signer.secret}"},
            "header": {"X-Relaygw-Secret": signer.secret},
            "basic in small letters": {"Authorization": basic.replace("Basic", "basic")},
            "spaces": {"Authorization": f" {basic} "},
        }[form]
        post = replace(signed, headers=headers).post(clock_ms())
        await FORMATS[preset].verify(post, signer.trust)


async def test_a_login_that_is_not_ascii() -> None:
    signer = replace(signer_of("postmark"), secret="shop:\u00e4\u00f6\u00fc-password")
    signed = signer.sign([examples("postmark")[0].make(Sent())], clock_ms())
    await FORMATS["postmark"].verify(signed.post(clock_ms()), signer.trust)
    as_latin_1 = signer.secret.encode().decode("latin-1")  # as an ASGI server reads it
    post = replace(signed, headers={"X-Relaygw-Secret": as_latin_1}).post(clock_ms())
    await FORMATS["postmark"].verify(post, signer.trust)


# --- Amazon SNS ----------------------------------------------------------------------------------


def an_event() -> dict[str, object]:
    return examples("ses")[3].make(Sent())


@each_of("version", ["1", "2"])
async def test_both_versions_of_the_signature(version: str) -> None:
    signer = Ses(version=version)
    signed = signer.sign([an_event()], clock_ms())
    assert (await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)).is_events
    with_subject = signer.envelope(
        {"Type": "Notification", "Message": "{}", "Subject": "Amazon SES"}, clock_ms()
    )
    await FORMATS["ses"].verify(with_subject.post(clock_ms()), signer.trust)


async def test_a_certificate_is_fetched_once() -> None:
    signer = Ses()
    for _ in range(5):
        signed = signer.sign([an_event()], clock_ms())
        await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)
    assert signer.fetched == [signer.certificate_url]


async def test_a_stranger_makes_nobody_fetch() -> None:
    signer, stranger = Ses(), Ses(topic="arn:aws:sns:us-east-1:999999999999:evil")
    for signed in (
        stranger.sign([an_event()], clock_ms()),
        stranger.confirmation(clock_ms()),
        signer.sign([an_event()], clock_ms() - DAY_MS),
    ):
        with pytest.raises(Refused):
            await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)
    assert signer.fetched == []


@each_of(
    "name, status",
    [
        ("expired", 403),
        ("to come", 403),
        ("small key", 503),
        ("elliptic curve", 503),
        ("garbage", 503),
        ("huge", 503),
        ("none", 503),
    ],
)
async def test_a_certificate_that_is_not_right(name: str, status: int) -> None:
    signer = Ses()
    served = {
        "expired": lambda: certificate(rsa_key(), days_from=-9, days_until=-1),
        "to come": lambda: certificate(rsa_key(), days_from=1),
        "small key": lambda: certificate(rsa_key(1024)),
        "elliptic curve": lambda: certificate(ec.generate_private_key(ec.SECP256R1())),
        "garbage": lambda: b"\x00\xff not a certificate",
        "huge": lambda: certificate(rsa_key()) + b"\n" * 20_000,
        "none": lambda: b"",
    }[name]()
    signer.served[signer.certificate_url] = served
    for _ in range(3):
        signed = signer.sign([an_event()], clock_ms())
        with pytest.raises(Refused) as refused:
            await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)
        assert refused.value.status == status
    assert len(signer.fetched) == 1  # not asked for at each post


async def test_a_certificate_that_could_not_be_had_is_asked_for_again() -> None:
    signer = Ses()
    held = signer.served.pop(signer.certificate_url)
    with pytest.raises(Refused):
        await signer.certificates.public_key(signer.certificate_url, clock_ms())
    signer.served[signer.certificate_url] = held
    with pytest.raises(Refused):
        await signer.certificates.public_key(signer.certificate_url, clock_ms() + 1_000)
    await signer.certificates.public_key(signer.certificate_url, clock_ms() + 61_000)


async def test_certificates_that_are_kept_are_few() -> None:
    pem, fetched = certificate(rsa_key()), []

    async def fetch(url: str) -> bytes:
        fetched.append(url)
        return pem

    certificates = Certificates(fetch)
    urls = [
        f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{number:032x}.pem"
        for number in range(40)
    ]
    for url in (*urls, urls[-1], urls[-17]):
        await certificates.public_key(url, clock_ms())
    assert fetched == [*urls, urls[-17]]


async def test_a_subscription_to_our_topic_is_to_be_confirmed() -> None:
    signer = Ses()
    signed = signer.confirmation(clock_ms())
    verified = await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)
    assert verified.confirm_url == json.loads(signed.body)["SubscribeURL"]
    assert not verified.is_events and FORMATS["ses"].read(signed.body) == []


@each_of(
    "url",
    [
        "https://evil.test/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}",
        "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&TopicArn={topic}&Token={token}",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token={token}",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=1",
        "https://sns.us-east-1.amazonaws.com@evil.test/?Action=ConfirmSubscription"
        "&TopicArn={topic}&Token={token}",
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}"
        "&Token={token}&AuthenticateOnUnsubscribe=true",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
async def test_nothing_else_is_fetched_to_confirm(url: str) -> None:
    signer = Ses()
    url = url.format(topic=signer.topic, token="2336412f37fb")
    signed = signer.confirmation(clock_ms(), SubscribeURL=url, Token="2336412f37fb")
    with pytest.raises(Refused):
        await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)


async def test_the_end_of_a_subscription_is_told_and_not_followed() -> None:
    signer = Ses()
    signed = signer.confirmation(clock_ms(), Type="UnsubscribeConfirmation")
    verified = await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)
    assert verified.confirm_url is None and not verified.is_events
    assert "ended" in verified.told and signer.topic in verified.told


async def test_the_words_after_a_confirmation_are_no_event() -> None:
    signer = Ses()
    said = b"Successfully validated SNS topic for Amazon SES event publishing."
    signed = signer.sign_bytes(said, clock_ms())
    verified = await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)
    assert not verified.is_events and FORMATS["ses"].read(signed.body) == []


async def test_a_login_beside_the_signature() -> None:
    signer = Ses()
    signer.secret = "sns:a long password"
    signed = signer.sign([an_event()], clock_ms())
    with pytest.raises(Refused) as refused:
        await FORMATS["ses"].verify(signed.post(clock_ms()), signer.trust)
    assert refused.value.status == 401


@each_of("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-2"])
def test_addresses_of_amazon(region: str) -> None:
    host = f"https://sns.{region}.amazonaws.com"
    assert is_certificate_url(f"{host}/SimpleNotificationService-{'0' * 32}.pem")
    assert is_subscribe_url(f"{host}/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:x&Token=2")
    assert is_certificate_url(
        f"https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-{'0' * 32}.pem"
    )


@each_of(
    "preset, secret",
    [
        ("sendgrid", "nonsense"),
        ("sendgrid", ""),
        ("mailgun", "tooshort"),
        ("postmark", "a:b"),
        ("brevo", ""),
        ("resend", "whsec_QUJD"),
        ("resend", "whsec_\u00e4"),
        ("ses", "a:b"),
    ],
)
def test_a_secret_that_cannot_be_right(preset: str, secret: str) -> None:
    problem = FORMATS[preset].problem(secret)
    assert problem and (not secret or secret not in problem)


@each_of("preset", sorted(SIGNERS))
def test_secrets_as_providers_have_them(preset: str) -> None:
    assert FORMATS[preset].problem(signer_of(preset).secret) == ""
