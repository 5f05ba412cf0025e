"""What holds for all tests."""

import signal

import pytest

from lightning_synther.online import policies


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Children hear Ctrl-C also where the suite runs in the background of a shell, which has them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def nothing_ships(tmp_path, monkeypatch) -> None:
    """A package without policies: what a test expects to be missing does not depend on what ships."""
    monkeypatch.setattr(policies, "SHIPPED", tmp_path / "no_policies")
