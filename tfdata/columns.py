"""Which column holds the text and which the label."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from shortline import UserError, printable

# A name of an earlier line wins; two names of the same line leave it open.
_TEXT_NAMES = (
    ("text",),
    ("texts", "body", "sentence", "document", "description", "message", "content", "utterance",
     "query", "comment", "review"),
    ("title", "headline", "subject", "summary"),
)  # fmt: skip
_LABEL_NAMES = (
    ("label",),
    ("labels", "category", "class", "target", "intent", "team", "tag", "topic", "sentiment"),
    ("y",),
)


def find_columns(
    names: Sequence[str],
    text: str | None,
    label: str | None,
    *,
    source: object,
    need_label: bool = True,
) -> tuple[str, str | None]:
    """The names of the text and the label column: those asked for, else those that are plain.

    `source` is the file that messages name. Without `need_label` the label is None unless asked
    for.

    >>> find_columns(["id", "Body", "team"], None, None, source="tickets.csv")
    ('Body', 'team')

    Raises:
      UserError: a column asked for is missing or stands there twice, or none is plain.
    """
    if text is not None:
        check_column(names, text, "--text", source)
    if label is not None:
        check_column(names, label, "--label", source)
    text = text if text is not None else _guess([n for n in names if n != label], _TEXT_NAMES)
    if label is None and need_label:
        label = _guess([n for n in names if n != text], _LABEL_NAMES)
    if text is None or (label is None and need_label):
        asked = "--text" if text is None else "--label"
        if text is None and label is None and need_label:
            asked = "--text and --label"
        raise UserError(
            f"{source}: cannot tell which column is meant by {asked}: it has "
            f"{_listed(names)}; say so with {asked}"
        )
    if text == label:
        raise UserError(f"--text and --label are both `{printable(text)}`; name two columns")
    return text, label


def _guess(names: Sequence[str], tiers: Sequence[Sequence[str]]) -> str | None:
    for tier in tiers:
        found = [name for name in names if name.strip().lower() in tier]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def check_column(names: Sequence[str], name: str, flag: str, source: object) -> None:
    """Raises a UserError where there is not one column of that name."""
    times = names.count(name)
    if times > 1:
        raise UserError(
            f"{source}: {times} columns are named `{printable(name)}`, so {flag} is not plain; "
            "rename one of them"
        )
    if times == 0:
        lowered = {n.lower(): n for n in names}
        near = difflib.get_close_matches(name.lower(), lowered, n=1)
        mend = f"did you mean {flag} {printable(lowered[near[0]])}? " if near else ""
        raise UserError(
            f"{source}: no column `{printable(name)}` for {flag}; {mend}it has {_listed(names)}"
        )


def _listed(names: Sequence[str], limit: int = 30) -> str:
    shown = ", ".join(printable(name, 60) for name in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"the columns {shown}{more}" if names else "no columns"
