"""A finding: what a check found, how much of it, what it does to the figures, and the mend."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shortline import printable

SEVERITIES = ("high", "medium", "low")
Severity = Literal["high", "medium", "low"]
_SHOWN = 110
"""Characters shown of a text or a label."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check has to say; a check that finds nothing makes none."""

    name: str
    """Of the check, as machines know it."""
    severity: Severity
    title: str
    """A sentence with the number in it."""
    count: int
    """Documents, classes or columns, as the title says."""
    of: int
    """Out of how many."""
    examples: tuple[str, ...] = ()
    """Two at most, each a line, escaped."""
    effect: str
    """What it does to the figures of a training."""
    figures: dict[str, float] = field(default_factory=dict)
    """The numbers behind the words."""
    mend: str
    """A flag, or what to do to the data."""
    sample: int | None = None
    """Documents looked at, where not all were."""

    @property
    def share(self) -> float:
        """`count` out of `of`."""
        return self.count / self.of if self.of else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        rounded = {name: round(float(value), 4) for name, value in self.figures.items()}
        fields = dataclasses.asdict(self) | {"figures": rounded, "share": round(self.share, 6)}
        return fields | {"examples": list(self.examples)}


def grade(share: float, high: float, medium: float) -> Severity:
    """How severe a share is, by the least that is high and the least that is medium."""
    return "high" if share >= high else "medium" if share >= medium else "low"


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """What matters most first; checks of equal severity stay as they are."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def render(findings: Sequence[Finding], width: int = 100) -> str:
    """Findings as text for a terminal; control characters are escaped already."""
    lines = []
    for number, finding in enumerate(findings, start=1):
        sample = f" (in a sample of {finding.sample:,})" if finding.sample else ""
        head = f"{number}. {finding.severity.upper()} {finding.name}: {finding.title}{sample}"
        lines += textwrap.wrap(head, width, subsequent_indent="   ")
        lines += [f"     e.g. {example}" for example in finding.examples]
        for name, said in (("does", finding.effect), ("mend", finding.mend)):
            indent = f"     {name}: "
            lines += textwrap.wrap(said, width, initial_indent=indent, subsequent_indent=" " * 11)
    return "\n".join(lines)


def show(text: str | None, limit: int = _SHOWN) -> str:
    """A text or label in one line, escaped and cut."""
    return printable(" ".join((text or "").split(" ")), limit)
