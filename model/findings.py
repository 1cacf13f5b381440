"""The report's section on the data: what the short form of the doctor found at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.page import section, table


def findings_section(summary: Mapping[str, Any]) -> str:
    """HTML of `summary["findings"]`, as tfdata.checkup's findings are in JSON; or nothing."""
    findings = summary.get("findings")
    if not findings:
        return ""
    rows = [
        (
            finding["severity"],
            [_told(finding), *(f"e.g. {example}" for example in finding["examples"])],
            [finding["effect"], f"Mend: {finding['mend']}"],
        )
        for finding in findings
    ]
    titles = ("weight", "what", "what it does, and what mends it")
    about = "From what ingest counted and a sample; python -m tfdata.doctor looks at all of it."
    return section("What is wrong with the data", table(titles, rows), about)


def _told(finding: Mapping[str, Any]) -> str:
    sample = f" (in a sample of {finding['sample']:,})" if finding["sample"] else ""
    return f"{finding['title']}{sample}."
