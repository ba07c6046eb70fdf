"""Which files of a directory stay at home: patterns as in .gitignore.

The rules are those of gitignore(5): the last pattern that matches decides, ``!`` takes a file in
again, a pattern with a slash counts from the directory of its file, one without at any depth, one
that ends with a slash only for directories; what is inside an ignored directory is never looked at.
"""

from __future__ import annotations

import os
import re

#: Files with patterns, in each directory; later ones override.
IGNORE_FILES = (".gitignore", ".rayignore", ".skateignore")


class Ignored:
    """Patterns, in the order in which they are asked: the first that matches decides."""

    def __init__(self, patterns: list[str]) -> None:
        #: What the user says in the program; it comes before all files.
        self._given = _rules(patterns, "")
        #: From files, the deepest first.
        self._found: list[_Rule] = []

    def entering(self, directory: str, prefix: str) -> Ignored:
        """Return what counts inside a directory, its own files with patterns included."""
        found: list[str] = []
        for name in IGNORE_FILES:
            try:
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    found += file.read().splitlines()
            except (OSError, UnicodeDecodeError):
                continue
        if not found:
            return self
        inside = Ignored([])
        inside._given = self._given
        inside._found = _rules(found, prefix) + self._found
        return inside

    def matches(self, name: str, is_directory: bool) -> bool:
        """Whether a file, named from the top with slashes, is left out."""
        for rule in (*self._given, *self._found):
            if rule.matches(name, is_directory):
                return not rule.negated
        return False


class _Rule:
    """One pattern."""

    __slots__ = ("_directories_only", "_expression", "_prefix", "negated")

    def __init__(
        self, expression: re.Pattern[str], prefix: str, negated: bool, directories_only: bool
    ) -> None:
        self._expression = expression
        self._prefix = prefix
        self.negated = negated
        self._directories_only = directories_only

    @classmethod
    def of(cls, line: str, prefix: str) -> _Rule | None:
        """Read one line; return None for comments and empty lines."""
        text = line.rstrip("\n\r")
        if not text.endswith("\\ "):
            text = text.rstrip(" ")
        if not text or text.startswith("#"):
            return None
        negated = text.startswith("!")
        text = text[1:] if negated else text
        text = text[1:] if text.startswith(("\\#", "\\!")) else text
        directories_only = text.endswith("/")
        text = text.rstrip("/")
        anchored = "/" in text
        text = text.removeprefix("/")
        if not text:
            return None
        if not anchored:
            text = "**/" + text
        return cls(re.compile(_translate(text), re.S), prefix, negated, directories_only)

    def matches(self, name: str, is_directory: bool) -> bool:
        if self._directories_only and not is_directory:
            return False
        if not name.startswith(self._prefix):
            return False
        return self._expression.fullmatch(name, len(self._prefix)) is not None


def _rules(patterns: list[str], prefix: str) -> list[_Rule]:
    """Read lines, the last of which is asked first."""
    rules = [_Rule.of(line, prefix) for line in reversed(patterns)]
    return [rule for rule in rules if rule is not None]


def _translate(pattern: str) -> str:
    """Return a regular expression for a pattern that counts from its directory."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/") and (position == 0 or pattern[position - 1] == "/"):
            parts.append("(?:[^/]+/)*")
            position += 3
        elif rest == "**" and pattern[position - 1 : position] in ("", "/"):
            parts.append(".+")
            position += 2
        elif rest[0] == "*":
            parts.append("[^/]*")
            position += 1
        elif rest[0] == "?":
            parts.append("[^/]")
            position += 1
        elif rest[0] == "[" and "]" in rest[2:]:
            end = position + rest.index("]", 2)
            inside = pattern[position + 1 : end].replace("\\", "\\\\")
            negated = inside[:1] in ("!", "^")
            inside = inside[1:] if negated else inside
            parts.append(f"(?!/)[{'^' if negated else ''}{inside.replace('[', chr(92) + '[')}]")
            position = end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            parts.append(re.escape(rest[1]))
            position += 2
        else:
            parts.append(re.escape(rest[0]))
            position += 1
    return "".join(parts)
