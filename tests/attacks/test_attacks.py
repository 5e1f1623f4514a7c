"""Under each attack, for a moment: others are answered, nothing fails, Ctrl-C ends the service.

How fast is for `python -m tests.attacks.run` to tell, on a machine that does nothing else.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from tests.attacks.attacks import ATTACKS
from tests.attacks.served import Served, ask, attacked, make_run, serving

REFUSED = {
    "scans_by_the_hundred": 422,
    "header_without_end": 431,
    "wrong_keys": 401,
    "page_loads": 429,
}
"""What each of these is answered with; the others may be answered in several ways."""
LIMITS = ("server.request_timeout=10", "server.idle_timeout=3", "server.decode_timeout=3")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("attacked")
    run = make_run(folder)
    with serving(Path(shutil.copytree(run.folder, folder / "copy")), *LIMITS) as served:
        yield served


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_another_client_is_answered_during_an_attack(served: Served, name: str):
    with attacked(served, name) as statuses:
        time.sleep(0.3)
        felt = ask(served.port, 1)
    assert felt.by_id and felt.by_picture and not felt.refused
    assert not {500, 502} & statuses.keys(), statuses
    if name in REFUSED:
        assert statuses[REFUSED[name]]


@pytest.mark.slow
def test_ctrl_c_ends_the_service_in_the_middle_of_attacks(served: Served):
    """The last test of this file, as it ends the service."""
    with attacked(served, "slow_pictures"), attacked(served, "unfinished_bodies"):
        time.sleep(1)
        assert served.interrupt() < 60 and served.process.returncode == 0
