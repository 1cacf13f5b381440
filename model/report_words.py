"""The report's section on the words that decided.

Labels and texts come from the data and may be hostile: every piece of them passes page.escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.attribution import Attribution
from model.page import escape, section

_MOST_CHARS = 600  # of a text that is shown
_FULL = 1.0  # weight from which a text's strongest word has the full colour


@dataclass(frozen=True)
class Explained:
    """A document of the scored part, and the words behind its answer."""

    label: str
    predicted: str
    probability: float
    """Of the predicted class."""
    by_predicted: Attribution
    by_label: Attribution | None
    """Of a wrong answer: what the words have to do with the label; None where the answer is right,
    or training lacks the label."""


def words_section(examples: Sequence[Explained]) -> str:
    """HTML; nothing without examples."""
    if not examples:
        return ""
    wrong = [each for each in examples if each.label != each.predicted]
    wrong.sort(key=lambda each: -each.probability)
    right = [each for each in examples if each.label == each.predicted]
    parts = []
    for title, chosen in (("Surest mistakes", wrong), ("Typical right answers", right)):
        if chosen:
            parts.append(f"<h3>{title}</h3>{''.join(map(_show, chosen))}")
    about = (
        "Each word is taken out of the text in turn. Blue: without it the class would be less "
        "likely, so it speaks for the class; orange: it speaks against it. The fuller the colour, "
        "the more; pointing at a word tells by how much the log-odds of the class fall. Of "
        "mistakes with the same label and answer, the surest alone is here."
    )
    return section("Words that decided", "".join(parts), about)


def _show(each: Explained) -> str:
    name = f"<bdi>{escape(each.predicted, 80)}</bdi>"
    if each.label == each.predicted:
        rows = [(f"{name} ({each.probability:.1%})", each.by_predicted)]
    else:
        label = f"<bdi>{escape(each.label, 80)}</bdi>"
        rows = [(f"taken for {name} ({each.probability:.1%})", each.by_predicted)]
        if each.by_label is None:
            rows[0] = (f"{rows[0][0]}; its label {label} is none of training", each.by_predicted)
        else:
            rows.append((f"its label: {label}", each.by_label))
    shown = "".join(f'<h4>{title}</h4><p dir="auto">{shade(found)}</p>' for title, found in rows)
    return f'<div class="words">{shown}</div>'


def shade(found: Attribution) -> str:
    """HTML of a text, its words as dark as they weigh."""
    full = max(_FULL, max(map(abs, found.weights.tolist()), default=0.0))
    parts, at = [], 0
    for (start, end), weight in zip(found.spans, found.weights.tolist(), strict=True):
        if end > _MOST_CHARS:
            break
        parts.append(escape(found.text[at:start]))
        side = "for" if weight > 0 else "against"
        parts.append(
            f'<mark class="{side}" style="--weight:{abs(weight) / full:.2f}" '
            f'title="{weight:+.2f}">{escape(found.text[start:end])}</mark>'
        )
        at = end
    rest = found.text[at:]
    if rest:
        parts.append(escape(rest, max(2, _MOST_CHARS - at)))
    return "".join(parts) or "(empty)"
