"""Every `.txt` beside this file plays as written; ``pytest --rewrite`` writes them anew, for review."""

from pathlib import Path

import pytest

from tests.scenarios.runner import rewritten

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    transcript = rewritten(path)
    if request.config.getoption("--rewrite"):
        path.write_text(transcript)
    assert path.read_text() == transcript
