"""The Python code of each page of the user guide runs as one script, as that of the README does.

Blocks marked ``python`` are run, one after the other in one namespace; a comment behind a ``print``
says what it prints.  What cannot run in a script (a session of a debugger, a shell command) is in
blocks of another kind.
"""

from __future__ import annotations

from pathlib import Path

import documents
import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "guide").glob("*.md"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    documents.run(page, tmp_path, 270)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_has_code(page: Path) -> None:
    assert documents.expected(documents.code(page))
