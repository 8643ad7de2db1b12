"""Mistakes that people make in a configuration, and what they are told to write instead.

Together with the lines of test_settings_errors these are the known ones; each was tried as a
newcomer would make it. None is told in the words of a YAML parser.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from relaygw.errors import SettingsError
from relaygw.settings.load import load_settings

HOST = "{host: smtp.example.com}"
GOOD = f"""mode: production
providers:
  main: {HOST}
routes: [{{name: default, providers: [main]}}]
"""
JARGON = (
    "geheim", "mapping values", "token", "block end", "scalar", "flow", "while parsing",
    "not an instance", "NoneType", "None", "end of stream", "a mapping", "node",
)  # fmt: skip


def provider(keys: str) -> str:
    return GOOD.replace(HOST, f"{{host: smtp.example.com, {keys}}}")


def route(keys: str) -> str:
    return GOOD.replace("name: default,", f"name: default, {keys},")


MISTAKES = {
    "mode misspelt": (GOOD.replace("production", "prodution"), "did you mean production?"),
    "mode of another program": (GOOD.replace("production", "live"), "did you mean production?"),
    "mode: dev": (GOOD.replace("production", "dev"), "did you mean sandbox?"),
    "mode: stage": (GOOD.replace("production", "stage"), "did you mean staging?"),
    "mode in capitals": (GOOD.replace("production", "Production"), "did you mean production?"),
    "no mode": (GOOD.replace("mode: production\n", ""), "write one of production, staging"),
    "no space after a colon": ("mode:production\n", "no space after a colon"),
    "Postfix's main.cf": ("relayhost = [smtp.example.com]:587\n", "import-postfix"),
    "more of main.cf": (
        "# See /usr/share/postfix\nmyhostname = a.example\nmynetworks = 10.0.0.0/8\n",
        "import-postfix",
    ),
    "a list of providers": (
        "mode: production\nproviders: [{host: smtp.example.com}]\n",
        "write NAME: and its keys",
    ),
    "a provider without a name": (
        "mode: production\nproviders:\n  host: smtp.example.com\n",
        "indent host below its name",
    ),
    "keys beside a provider's name": (
        "mode: production\nproviders:\n  main:\n  host: smtp.example.com\n",
        "providers.main: has nothing below it; indent its keys",
    ),
    "a provider that is a text": (
        "mode: production\nproviders: {main: smtp.example.com}\n",
        "write KEY: VALUE below it, indented",
    ),
    "a brace that is missing": (
        "mode: production\nproviders:\n  main: {host: smtp.example.com, port: 587\nqueue: {}\n",
        "the { that begins on line 3 is not closed before this; write }",
    ),
    "a bracket that is missing": (
        "mode: production\nrecipients:\n  allow: [a@b.example, c@d.example\nqueue: {}\n",
        "the [ that begins on line 3 is not closed before this; write ]",
    ),
    "a brace at the end of the file": (
        "mode: production\nproviders: {main: {host: a.example}\n",
        "that begins on line 2 is not closed",
    ),
    "a comma that is missing": (
        "mode: production\nproviders: {main: {host: a.example port: 587}}\n",
        "or a comma between its entries",
    ),
    "a quote that is missing": (
        'mode: "production\nproviders: {}\n',
        "the quote that begins on line 1 is not closed",
    ),
    "indented too far": (
        "mode: production\nproviders:\n  main:\n    host: a.example\n     port: 587\n",
        "relaygw.yaml:5: a key cannot stand here; check the indentation",
    ),
    "indented too little": (
        "mode: production\nproviders:\n    main:\n      host: a.example\n   port: 587\n",
        "relaygw.yaml:5: this does not stand below what is before it",
    ),
    "a tab": ("mode: production\nproviders:\n\tmain: {}\n", "write spaces instead"),
    "a domain without quotes": (
        "mode: sandbox\nrecipients: {allow: [@example.com]}\n",
        "put the text in quotes",
    ),
    "a star without quotes": ("mode: sandbox\nhostname: *\n", "quote"),
    "a backslash in double quotes": ('mode: sandbox\nhostname: "a\\d"\n', "single quotes"),
    "an address without quotes": (
        "mode: sandbox\nlisteners: [{bind: [::1]:25}]\n",
        "quote an address",
    ),
    "a text with a colon": ("mode: sandbox\nhostname: a: b\n", "quote a text that holds a colon"),
    "no hash": (GOOD + "web: {users: [{name: anna}]}\n", "relaygw users hash"),
    "a password for a hash": (
        GOOD + "web: {users: [{name: anna, password_hash: geheim}]}\n",
        "relaygw users hash",
    ),
    "a quota of nothing": (provider("daily_quota: 0"), "0 is not an integer 1-1000000000"),
    "a quota with a word": (provider("daily_quota: unlimited"), "is not an integer 1-"),
    "tls: starttls": (provider("tls: starttls"), "did you mean required?"),
    "tls: ssl": (provider("tls: ssl"), "did you mean implicit?"),
    "tls: true": (provider("tls: true"), "did you mean required?"),
    "tls: off": (provider("tls: off"), "did you mean none?"),
    "tls misspelt": (provider("tls: implcit"), "did you mean implicit?"),
    "auth: oauth2": (provider("auth: oauth2"), "did you mean xoauth2?"),
    "auth misspelt": (provider("auth: plian"), "did you mean plain?"),
    "a preset in capitals": (
        GOOD.replace(HOST, "{preset: SendGrid, password: env:X}"),
        "write sendgrid",
    ),
    "rate as limit": (
        provider("limit: 100/h"),
        "providers.main.limit: is not a key here; did you mean rate?",
    ),
    "rate as rate_limit": (provider("rate_limit: 100/h"), "did you mean rate?"),
    "rate as max_per_hour": (provider("max_per_hour: 100"), "did you mean rate?"),
    "a route without a dash": (
        GOOD.replace("[{name: default, providers: [main]}]", "{name: default, providers: [main]}"),
        "routes: is a list; write - and a space before the first key of each entry",
    ),
    "an alert without a dash": (
        GOOD + "alerts:\n  webhook: https://h.example/x\n",
        "alerts: is a list; write - and a space before",
    ),
    "a tab after a colon": (
        GOOD.replace("mode: ", "mode:\t"),
        "relaygw.yaml:1: a tab stands before a value; write a space instead",
    ),
    "a port's name": (provider("port: smtp"), "write e.g. 587"),
    "a port that is none": (provider("port: 70000"), "is not an integer 1-65535"),
    "a key of a list at the top": (
        f"max_message_size: 10M\n{GOOD}",
        "max_message_size: is not a key here; it belongs in listeners or providers",
    ),
    "a URL as a host of the pages": (
        GOOD + "web: {hosts: ['https://gw.example.com']}\n",
        "is not a host name or IP address; write it alone",
    ),
    "a port at a host of the pages": (
        GOOD + "web: {hosts: ['gw.example.com:8080']}\n",
        "is not a host name or IP address; write it alone",
    ),
    "a pattern as a host of the pages": (
        GOOD + "web: {hosts: ['*.example.com']}\n",
        "is not a host name or IP address; write it alone",
    ),
    "a star for all of a domain": (
        GOOD + "recipients: {block: ['*@spam.example']}\n",
        'write e.g. "@example.com"',
    ),
    "a star for all senders of a domain": (
        GOOD + "rewrite: {senders: {'*@old.example': shop@example.com}}\n",
        'write e.g. "@example.com"',
    ),
    "two channels in an alert": (
        GOOD + "alerts: [{webhook: 'https://a.test/x', email: a@b.test, sender: c@d.test}]\n",
        "each entry is one channel, so write two entries",
    ),
    "a number without its time": (
        GOOD + "expect: [{subject: 'Order*', at_least: 5}]\n",
        "write e.g. 14/s, 25/m, 1000/h or 5/d",
    ),
    "a no-break space": (
        GOOD.replace(": ", ":\xa0", 1),
        "relaygw.yaml:1: holds a no-break space; type a plain space",
    ),
    "a quote that the next text's closes": (
        'hostname: "gw.example.com\n' + GOOD + 'recipients: {block: ["@spam.example"]}\n',
        "relaygw.yaml:1: the quote on this line is not closed; close it",
    ),
    "no space after the colon of the first key": (
        GOOD.replace(": ", ":", 1),
        "relaygw.yaml:1: has no space after a colon; write KEY: VALUE",
    ),
    "no space after the colon of a key in a section": (
        GOOD + "queue:\n  url:x\n  retention: 3d\n",
        f"relaygw.yaml:{GOOD.count(chr(10)) + 2}: has no space after a colon; write KEY: VALUE",
    ),
    "no colon": (
        "mode: production\nproviders:\n  main:\n    host: a.example\n    port 587\n    tls: none\n",
        "relaygw.yaml:5: a key has no value; write KEY: VALUE",
    ),
    "no colon in the first key": (
        "mode: production\nproviders:\n  main:\n    port 587\n    host: a.example\n",
        "relaygw.yaml:4: a key has no value; write KEY: VALUE",
    ),
    "no space after the sign of an entry": (
        GOOD + "listeners:\n  -bind: '127.0.0.1:25'\n",
        "listeners: has no space after a -; write - VALUE",
    ),
    "no space after the sign of an entry that is a text": (
        GOOD + "recipients:\n  allow:\n    -a@b.example\n",
        "recipients.allow: has no space after a -; write - VALUE",
    ),
    "a key that is like none": (
        f"bogus: 1\n{GOOD}",
        "bogus: is not a key here; the keys are mode,",
    ),
    "another mistake beside a no-break space that does no harm": (
        "# a\xa0note\n" + GOOD.replace("mode: ", "mode: [", 1),
        "is not closed before this",
    ),
    "a preset at the top": (f"preset: sendgrid\n{GOOD}", "it belongs in providers"),
    "a section misspelt": (f"listener: []\n{GOOD}", "did you mean listeners?"),
    "a key misspelt": (provider("pasword: env:X"), "did you mean password?"),
    "a key with a hyphen": (provider("max-connections: 3"), "did you mean max_connections?"),
    "a bare password": (provider("username: u, password: geheim"), "env:NAME, file:PATH"),
    "a private key itself": (
        provider(
            "username: u, oauth: {token_url: 'https://l.example/t', client_id: x, "
            "certificate: /x.pem, key: '-----BEGIN PRIVATE KEY----- geheim'}"
        ),
        "oauth.key: the value (not shown) is not a secret reference",
    ),
    "a rate with words": (provider("rate: 100/hour"), "write e.g. 14/s, 25/m, 1000/h or 5/d"),
    "a quota with a point": (provider("daily_quota: 10.000"), "1-1000000000; write e.g. 10000"),
    "a quota with a unit": (provider("daily_quota: 1000/d"), "1-1000000000; write e.g. 10000"),
    "two documents": (
        f"{GOOD}---\nlog: {{}}\n",
        "--- begins a second document here; remove it: a file is one document",
    ),
    "a relative secret": (
        provider("username: u, password: 'file:key'"),
        "needs an absolute path",
    ),
    "a stream misspelt": (route("stream: promo"), "did you mean promotional?"),
    "a stream of another program": (route("stream: bulk"), "did you mean promotional?"),
    "an expression": (route("sender: ['/regex[/']"), "no expression is read here"),
    "a star and a domain": (route("sender: ['*@shop.example']"), '"@example.com"'),
    "an unknown provider": (GOOD.replace("[main]", "[mian]"), "write one of: main"),
    "a provider that is no list": (GOOD.replace("[main]", "main"), "write [VALUE, VALUE]"),
    "an alert's rule": (
        GOOD + "alerts: [{webhook: 'https://h.example/x', on: [provider_dwn]}]\n",
        "did you mean provider_down?",
    ),
    "an alert of nothing": (GOOD + "alerts: [{on: [held]}]\n", "names no channel"),
    "a duration in words": (GOOD + "retry: {first: 5 minutes}\n", "write e.g. 30s, 5m"),
    "a webhook over http": (
        GOOD + "webhooks: [{url: 'http://h.example/x', secret: 'env:S'}]\n",
        "write https://",
    ),
    "a log's form": (GOOD + "log: {format: jsn}\n", "did you mean json?"),
    "a log's file": (GOOD + "log: {target: /var/log/mail.log}\n", "file:/var/log/relaygw/mail.log"),
    "a listener without a port": (GOOD + "listeners: [{bind: 127.0.0.1}]\n", "127.0.0.1:25"),
    "a listener that is a text": (GOOD + "listeners: '127.0.0.1:25'\n", "write [VALUE, VALUE]"),
    "an open relay": (
        GOOD + "listeners: [{bind: '0.0.0.0:25', allow: ['0.0.0.0/0']}]\n",
        "listeners.0",
    ),
    "pages for all": ("mode: sandbox\nweb: {bind: '0.0.0.0:8025'}\n", "add web.users"),
    "a role misspelt": (
        GOOD + "web: {users: [{name: a, password_hash: x, role: amdin}]}\n",
        "did you mean admin?",
    ),
    "the same key again": (GOOD + "mode: sandbox\n", "is set twice, first on line 1"),
    "true in words": (provider("auth_without_tls: ja"), "is not true or false"),
    "a network for an address": (
        GOOD + "listeners: [{bind: '10.0.0.0/8:25'}]\n",
        "write e.g. 127.0.0.1:25",
    ),
    "an alias of nobody": (
        GOOD + "rewrite: {recipients: {root: []}}\n",
        "rewrite.recipients.root: a list has 0 addresses; write 1 to 1000",
    ),
    "an alias of a name": (
        GOOD + "rewrite: {recipients: {root: [a@b.example, ops]}}\n",
        'rewrite.recipients.root.1: "ops" is not an address or "@domain"',
    ),
    "every recipient": (
        GOOD + "rewrite: {recipients: {'*': a@b.example}}\n",
        "the only keys of recipients",
    ),
    "the null recipient": (
        GOOD + "rewrite: {recipients: {'<>': a@b.example}}\n",
        "the only keys of recipients",
    ),
    "a sender without a domain": (
        GOOD + "rewrite: {senders: {www-data: a@b.example}}\n",
        '"*" (every other sender)',
    ),
    "anybody at any domain": (
        GOOD + "rewrite: {senders: {'*@*': a@b.example}}\n",
        '"*" (every other sender)',
    ),
    "nobody at any domain": (
        GOOD + "rewrite: {recipients: {'@*': a@b.example}}\n",
        "the only keys of recipients",
    ),
    "a domain for a user of any domain": (
        GOOD + "rewrite: {senders: {'www-data@*': '@c.example'}}\n",
        "@c.example is a whole domain, and its key is none; write an address",
    ),
    "a domain for an address": (
        GOOD + "rewrite: {senders: {a@b.example: '@c.example'}}\n",
        "@c.example is a whole domain, and its key is none; write an address",
    ),
    "a domain for the null sender": (
        GOOD + "rewrite: {senders: {'<>': '@c.example'}}\n",
        "write an address",
    ),
    "a delimiter of two signs": (
        GOOD + "rewrite: {recipient_delimiter: '+-'}\n",
        '"+-" is not a single sign',
    ),
    "a delimiter that is a letter": (
        GOOD + "rewrite: {recipient_delimiter: x}\n",
        '"x" is not a single sign, as no letter or digit is; write "+"',
    ),
    "a part of the header": (GOOD + "rewrite: {header: [sender]}\n", "did you mean senders?"),
    "an archive that is a name": (GOOD + "archive_to: archive\n", "write LOCALPART@DOMAIN"),
    "an archive that is a domain": (
        GOOD + "archive_to: '@b.example'\n",
        "write LOCALPART@DOMAIN",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_says_what_to_write(mistake: str, tmp_path: Path) -> None:
    text, remedy = MISTAKES[mistake]
    file = tmp_path / "relaygw.yaml"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(SettingsError) as caught:
        load_settings(config=file, environ={"HOME": "/"})
    said = str(caught.value)
    assert remedy in said, said
    for word in JARGON:
        assert word not in said, said
