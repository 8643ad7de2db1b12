from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relaygw.errors import SettingsError
from relaygw.settings.load import LoadedSettings, load_settings

Load = Callable[..., LoadedSettings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write `text` as relaygw.yaml (private) and `parts` into conf.d, then load them."""

    def write_and_load(
        text: str | bytes, environ: dict[str, str] | None = None, **parts: str
    ) -> LoadedSettings:
        file = tmp_path / "relaygw.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(0o600)
        for name, part in parts.items():
            (tmp_path / "conf.d").mkdir(exist_ok=True)
            (tmp_path / "conf.d" / f"{name}.yaml").write_text(part)
        variables = {"XDG_STATE_HOME": str(tmp_path / "state"), **(environ or {})}
        return load_settings(config=file, environ=variables)

    return write_and_load


@pytest.fixture
def lines_of(load: Load) -> Callable[..., list[str]]:
    """Load what must fail and return the lines of the error."""

    def load_and_fail(
        text: str | bytes, environ: dict[str, str] | None = None, **parts: str
    ) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            load(text, environ, **parts)
        return str(caught.value).splitlines()

    return load_and_fail
