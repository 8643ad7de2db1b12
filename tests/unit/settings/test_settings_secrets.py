from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from relaygw.errors import SettingsError
from relaygw.settings.provider import Provider
from relaygw.settings.secrets import SecretRef, check_private, parse_user_name
from tests.tables import each_of

CANARY = "hunter2-canary"


def private_file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


def error_of(reference: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        SecretRef.parse(reference).read(environ or {})
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value.__context__)
    return str(caught.value)


def test_each_form_reads_its_secret(tmp_path: Path) -> None:
    file = private_file(tmp_path / "key", f"{CANARY}\n")
    environ = {"SMTP_PASSWORD": CANARY, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    references = [
        "env:SMTP_PASSWORD",
        f"file:{file}",
        "credential:key",
        f"command:printf '%s\\nlogin: shop\\n' {CANARY}",
        f"plain:{CANARY}",
    ]
    assert {SecretRef.parse(text).read(environ) for text in references} == {CANARY}


def test_a_changed_secret_is_read_anew(tmp_path: Path) -> None:
    reference = SecretRef.parse(f"file:{private_file(tmp_path / 'key', 'old')}")
    assert reference.read() == "old"
    private_file(tmp_path / "key", "\ufeffnew\r\n")  # as editors of Windows write it
    assert reference.read() == "new"


@pytest.mark.parametrize(
    "value", [CANARY, f"ENV:{CANARY}", f"vault:{CANARY}", f":{CANARY}", 12345, None, ["env:A"]]
)
def test_a_bare_string_is_refused_with_the_five_forms(value: object) -> None:
    with pytest.raises(ValueError, match="env:NAME, file:PATH, credential:NAME") as caught:
        SecretRef.parse(value)
    assert CANARY not in str(caught.value)


@each_of(
    "text",
    [
        "env:",
        "env:A-B",
        "file:relative",
        "credential:../etc/passwd",
        "credential:..",
        "command:",
        f"command:echo '{CANARY}",
        "plain:",
    ],
)
def test_a_reference_that_can_never_work_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        SecretRef.parse(text)
    assert CANARY not in str(caught.value)


def test_nothing_that_shows_a_reference_shows_the_secret() -> None:
    plain = SecretRef.parse(f"plain:{CANARY}")
    command = SecretRef.parse(f"command:vault read {CANARY}")
    provider = Provider.model_validate(
        {"host": "smtp.example.com", "username": "shop", "password": f"plain:{CANARY}"}
    )
    shown = [plain, command, [plain, command], {"a": plain}, provider, provider.model_dump()]
    texts = [f"{one} {one!r}" for one in shown] + [provider.model_dump_json()]
    assert CANARY not in " ".join(texts)
    assert str(plain) == "plain:***"
    assert str(command) == "command:vault ***"
    assert str(SecretRef.parse("env:SMTP_PASSWORD")) == "env:SMTP_PASSWORD"


def test_the_model_itself_hides_what_it_refuses() -> None:
    with pytest.raises(ValidationError) as caught:
        Provider.model_validate({"host": "smtp.example.com", "password": CANARY})
    assert CANARY not in f"{caught.value} {caught.value!r}"


def test_a_reference_survives_the_way_to_another_process() -> None:
    plain = SecretRef.parse(f"plain:{CANARY}")
    assert pickle.loads(pickle.dumps(plain)) == plain


def test_a_missing_variable_names_it_and_the_remedy() -> None:
    assert "EnvironmentFile=" in error_of("env:SMTP_PASSWORD")


def test_a_credential_without_systemd_names_the_directive() -> None:
    assert "LoadCredential=smtp:" in error_of("credential:smtp")


def test_a_credential_that_systemd_has_not_handed_over_is_told_with_its_name(
    tmp_path: Path,
) -> None:
    for name in ("smtp", "relaygw_smtp"):
        said = error_of(f"credential:{name}", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
        assert "keep it in /etc/relaygw/credentials/smtp, name it credential:relaygw_smtp" in said


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in error_of(f"file:{tmp_path / 'gone'}")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_file_open_to_others_is_refused_with_the_chmod(tmp_path: Path, mode: int) -> None:
    file = private_file(tmp_path / "key", CANARY)
    file.chmod(mode)
    assert f"run: chmod o-rwx {file}" in error_of(f"file:{file}")


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o660])
def test_a_file_for_owner_and_group_is_read(tmp_path: Path, mode: int) -> None:
    file = private_file(tmp_path / "key", CANARY)
    file.chmod(mode)
    assert SecretRef.parse(f"file:{file}").read() == CANARY


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "regular file" in error_of(f"file:{tmp_path / 'pipe'}")
    assert "regular file" in error_of(f"file:{tmp_path}")


@pytest.mark.parametrize(
    "content",
    [f"{CANARY}\n{CANARY}\n", f"{CANARY}\0", b"hunter2-canary\xff", "", "\n", CANARY * 9999],
)
def test_a_file_that_holds_no_single_line_is_refused(tmp_path: Path, content: str | bytes) -> None:
    error_of(f"file:{private_file(tmp_path / 'key', content)}")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (f"sh -c 'echo {CANARY} >&2; echo {CANARY}; exit 3'", "status 3"),
        (f"/nonexistent/client {CANARY}", "cannot be started"),
        (f"sh -c 'printf \"{CANARY}\\377\"'", "not UTF-8"),
        ("true", "empty"),
    ],
)
def test_a_failing_command_says_how_and_shows_no_argument(command: str, problem: str) -> None:
    assert problem in error_of(f"command:{command}")


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaygw.settings.secrets._COMMAND_LIMIT_S", 0.05)
    assert "took longer" in error_of(f"command:sh -c 'exec sleep 60' {CANARY}")


def test_a_user_name_is_a_reference_or_a_name() -> None:
    reference = parse_user_name("env:SES_USER")
    assert isinstance(reference, SecretRef)
    assert reference.read({"SES_USER": "AKIA"}) == "AKIA"
    assert parse_user_name("apikey") == "apikey"
    assert parse_user_name("shop@x.test") == "shop@x.test"


def test_secrets_go_where_nobody_else_can_put_any(tmp_path: Path) -> None:
    secrets, other = tmp_path / "secrets", tmp_path / "other"
    check_private(secrets)
    other.mkdir(mode=0o700)
    secrets.symlink_to(other)
    with pytest.raises(SettingsError, match=r"secrets is a symbolic link, .*; remove it, or name"):
        check_private(secrets)
    secrets.unlink()
    secrets.touch()
    with pytest.raises(SettingsError, match="secrets is not a directory; move it away"):
        check_private(secrets)
    check_private(other)
    other.chmod(0o777)
    with pytest.raises(SettingsError, match=r"has mode 0777, .*; chmod 700 .*/other, or name"):
        check_private(other)
    if os.geteuid() == 0:
        other.chmod(0o700)
        os.chown(other, 12345, -1)
        with pytest.raises(SettingsError, match=r"belongs to 12345, who could .*; chown it to"):
            check_private(other)
