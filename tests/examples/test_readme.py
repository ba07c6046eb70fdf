"""The Python code in README.md runs, from top to bottom, and prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import documents
import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.timeout(150)
def test_the_tour_prints_what_it_says(tmp_path: Path) -> None:
    script = documents.run(README, tmp_path, 120)
    assert len(documents.expected(script)) == script.count("print(")


def test_the_readme_names_targets_that_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", README.read_text()))
    assert {"demo", "test"} <= named
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert named & targets >= {"demo", "test", "bench"}
