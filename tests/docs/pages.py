"""The documentation as data: pages, headings, links, code. What the tests of this folder look at."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^( {0,3})(```+|~~~+)[^\n]*\n(.*?)^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[str]:
        """The contents of its fenced blocks."""
        return [match[3] for match in _FENCE.finditer(self.text)]

    @property
    def prose(self) -> str:
        """Its text without fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """Its code spans."""
        return [" ".join(match[2].split()) for match in _SPAN.finditer(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """What a link may name behind #, by the rule of GitHub."""
        found: set[str] = set()
        for match in _HEADING.finditer(self.prose):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).replace("`", "")
            anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            number = 0
            while (one := f"{anchor}-{number}" if number else anchor) in found:
                number += 1
            found.add(one)
        return found

    @property
    def links(self) -> list[str]:
        """The targets of its links and pictures."""
        bare = _SPAN.sub("", self.prose)
        return [match[1] for pattern in (_LINK, _IMAGE) for match in pattern.finditer(bare)]

    @property
    def command_lines(self) -> list[list[str]]:
        """Lines of its blocks and code spans, as words; comments and what a shell could not read are left out."""
        lines = [line for block in self.blocks for line in block.replace("\\\n", " ").splitlines()]
        found = []
        for line in [*lines, *self.spans]:
            try:
                words = shlex.split(line.removeprefix("$ ").strip(), comments=True)
            except ValueError:
                continue
            while words and _ASSIGNMENT.fullmatch(words[0]):
                words = words[1:]
            if words:
                found.append(words)
        return found

    def section(self, title: str) -> str:
        """What stands under a heading up to the next heading of any level; "" where there is no such heading."""
        match = re.search(
            rf"^#+ +`?{re.escape(title)}(?!\w)[^\n]*\n(.*?)(?=^#+ |\Z)", self.text, re.MULTILINE | re.DOTALL
        )
        return match[1] if match else ""


def pages() -> list[Page]:
    """Every page that people are pointed to, README first."""
    found = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    found += [ROOT / "staging" / "README.md", *sorted((ROOT / "runbooks").glob("*.md"))]
    return [Page(path) for path in found if path.is_file()]


def page(name: str) -> Page:
    """The page at a path in the repository."""
    return Page(ROOT / name)
