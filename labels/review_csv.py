"""The clusters as a table for a spreadsheet, and the changes in it as decisions.

A row a cluster. What may be changed: `label` (the same on several rows merges them) and `status`
(open, kept, dropped or noise). A row that was changed while somebody else has decided about its
cluster is not taken. A ' stands before what a spreadsheet would take for a formula or turn into a
number or a date; it is taken off again when the table is read.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labels.journal import STATUS_OF, Decision, check_label
from labels.review_desk import Desk
from labels.review_state import NOISE, Group, Review
from shortline import UserError, printable, write_whole

_NEEDED = ("cluster", "version", "label", "status")
_SHOWN = (
    "documents",
    "texts",
    "cohesion",
    "words",
    "nearest",
    "example_1",
    "example_2",
    "example_3",
)
_ACTION_OF = {status: action for action, status in STATUS_OF.items()}
_MOST_TOLD = 5  # rows that a message names
_LONGEST_EXAMPLE = 300

_SIGNS = r"=+\-@＝＋－＠"  # that a formula begins with
_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    "sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DIGITS = r"[\d\s.,:/+%'-]"
_DATE = rf"{_DIGITS}*{_MONTH}{_DIGITS}*"
_MANGLED = rf"(?i:(?=\D*\d)(?:{_DIGITS}+|{_DATE})|[\d.,']+e[+-]?\d+|'*(?:true|false))\Z"
"""A number, a date or a truth, also with '."""
_BEGINS = rf"(?<![\w'{_SIGNS}])"  # whatever a spreadsheet may split at, take off or pass over
_BARE = re.compile(rf"^(?={_MANGLED})|{_BEGINS}(?='*[{_SIGNS}])")
_GUARDED = re.compile(rf"^'(?={_MANGLED})|{_BEGINS}'(?='*[{_SIGNS}])")


def guard(text: str) -> str:
    """A cell that a spreadsheet takes for text, wherever it splits and whatever it takes off.

    A ' stands before each sign that follows no letter, digit or sign: not at the cell's start
    alone, as a spreadsheet may split at `;` or blanks, and take off quotes and blanks before it.

    >>> guard("=1+1"), guard('a;"-b'), guard("1e5"), guard("it's"), guard("e-mail")
    ("'=1+1", 'a;"\\'-b', "'1e5", "it's", 'e-mail')
    """
    return _BARE.sub("'", text)


def unguard(text: str) -> str:
    """What `guard` was given. Text of other hands stays as it is.

    >>> unguard("'=1+1"), unguard("'tis")
    ('=1+1', "'tis")
    """
    return _GUARDED.sub("", text)


def export_csv(desk: Desk, path: Path) -> str:
    """Writes the table; says so."""
    with write_whole(path) as file:
        file.write("\ufeff")  # else Excel does not take it for UTF-8
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(_NEEDED + _SHOWN)
        groups = [group for group in desk.review.groups.values() if group.id != NOISE]
        for group in sorted(groups, key=lambda group: (-desk.facts[group.id].size, group.id)):
            cells = [f"c{group.key}", group.version, group.name, group.status]
            writer.writerow(guard(str(cell)) if type(cell) is str else cell
                            for cell in (*cells, *_describe(desk, group)))  # fmt: skip
    return f"{printable(str(path))}: {len(groups):,} clusters; change label and status, and then " \
           f"--import-csv it"  # fmt: skip


def _describe(desk: Desk, group: Group) -> Iterator[str | int | float]:
    fact, nearest = desk.facts[group.id], desk.facts.nearest(group.id)
    yield fact.size
    yield len(group.points)
    yield round(fact.cohesion, 3)
    yield " ".join(word for word, _ in fact.words)
    yield desk.review.groups[nearest[0]].name if nearest else ""
    ordered = desk.facts.sort_typical(group)
    for place in (0, len(ordered) // 2, len(ordered) - 1):
        yield printable(desk.data.texts[int(ordered[place])].as_py() or "", _LONGEST_EXAMPLE)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row of the table that differs from what was exported."""

    number: int
    group: Group
    name: str
    status: str


def import_csv(desk: Desk, path: Path) -> str:
    """Takes the changes of a table as decisions; says how many.

    Raises:
      UserError: it is not such a table, or a cell cannot be taken: nothing is decided then. Or
        rows are stale: those alone are not taken.
    """
    cells = list(_read_cells(path))
    stale: list[str] = []

    def plan(next_id: int) -> Sequence[Decision]:
        rows, old = _find_changed(desk.review, path, cells)
        stale.extend(old)
        return _decide(desk.review, path, rows, next_id)

    made = desk.take_in(plan)
    done = f"{printable(str(path))}: {len(made):,} decisions taken"
    if stale:
        told = "; ".join(stale[:_MOST_TOLD]) + (" …" if len(stale) > _MOST_TOLD else "")
        raise UserError(
            f"{done}, {len(stale):,} rows not, as their clusters have been changed since the "
            f"table was written: {told}; --export-csv again for these"
        )
    return done


def _read_cells(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The number, as a spreadsheet has it, and the cells of each row that is not empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not in UTF-8; save it as “CSV UTF-8”") from None
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 1
    try:
        names = [name.strip() for name in next(rows, [])]
        if missing := [name for name in _NEEDED if names.count(name) != 1]:
            raise UserError(f"{path}: row 1: must name the column {missing[0]} once")
        for number, row in enumerate(rows, 2):
            if any(cell.strip() for cell in row):
                yield number, dict(zip(names, (cell.strip() for cell in row), strict=False))
    except csv.Error as error:
        raise UserError(f"{path}: after row {number}: {error}; save the table anew") from error


def _find_changed(
    review: Review, path: Path, cells: Sequence[tuple[int, dict[str, str]]]
) -> tuple[list[_Row], list[str]]:
    """The rows that are to be taken, and words for those that are stale."""
    changed, stale, seen = [], [], {}
    for number, row in cells:
        key, version = row.get("cluster", "").removeprefix("c"), row.get("version", "")
        if not re.fullmatch(r"[0-9a-f]{16}", key) or not re.fullmatch(r"[0-9]{1,12}", version):
            raise UserError(f"{path}: row {number}: cluster and version must stay as exported")
        if key in seen:
            raise UserError(f"{path}: row {number}: is the same cluster as row {seen[key]}")
        seen[key] = number
        base = review.at_version(key, int(version))
        if base is None:
            stale.append(f"row {number} is not a cluster that there was")
            continue
        name, status = _read_wanted(path, number, row, base)
        id = review.find(key)
        group = review.groups[id] if id is not None else None
        if (name, status) == (base.name, base.status):
            continue  # as exported: whatever has become of it since stays
        if group is not base:
            stale.append(f"row {number} (“{base.name}”)")
            continue
        changed.append(_Row(number=number, group=base, name=name, status=status))
    return changed, stale


def _read_wanted(path: Path, number: int, row: dict[str, str], base: Group) -> tuple[str, str]:
    name = " ".join(unguard(row.get("label", "")).split())
    if name in ("", " ".join(base.name.split())):
        name = base.name
    status = row.get("status", "").lower() or base.status
    status = STATUS_OF.get(status, status)
    try:
        check_label(name if name != base.name else "unchanged")
    except ValueError as error:
        raise UserError(f"{path}: row {number}: {error}") from None
    if status not in _ACTION_OF:
        raise UserError(
            f"{path}: row {number}: status {printable(status, 40)}: must be one of "
            f"{', '.join(_ACTION_OF)}"
        )
    return name, status


def _decide(review: Review, path: Path, rows: Sequence[_Row], next_id: int) -> list[Decision]:
    """Merges and renames so that each label has one cluster, then marks them; all are committed."""
    wanted = {row.group.id: row for row in rows}
    by_name: dict[str, list[Group]] = {}
    for group in review.groups.values():
        name = wanted[group.id].name if group.id in wanted else group.name
        if group.id != NOISE:
            by_name.setdefault(name, []).append(group)
    made: list[Decision] = []
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")

    def commit(action: str, keys: Sequence[str], label: str | None = None) -> None:
        decision = Decision(
            action=action, clusters=tuple(keys), label=label, by=f"table {path.name[:60]}",
            time=now, id=next_id + len(made),
        )  # fmt: skip
        review.commit(review.plan(decision))
        made.append(decision)

    marked: dict[str, list[str]] = {}
    for name, groups in by_name.items():
        asked = [wanted[group.id] for group in groups if group.id in wanted]
        if not asked:
            continue
        into, status = _choose(path, name, groups, asked)
        if len(groups) > 1:
            commit("merge", [into.key, *(group.key for group in groups if group is not into)])
        if into.name != name:
            commit("rename", [into.key], name)
        if into.status != status:
            marked.setdefault(status, []).append(into.key)
    for status, keys in marked.items():
        commit(_ACTION_OF[status], keys)
    return made


def _choose(
    path: Path, name: str, groups: Sequence[Group], asked: Sequence[_Row]
) -> tuple[Group, str]:
    """Which of the clusters of one label stays, and what its status is to be."""
    into = max(groups, key=lambda g: (g.status in ("open", "kept"), g.name == name, len(g.points)))
    if len(groups) > 1 and into.status not in ("open", "kept"):
        raise UserError(
            f"{path}: row {asked[0].number}: “{name}” is the label of several clusters that are "
            f"{into.status}; open one of them first"
        )
    statuses = {row.status for row in asked if row.status != row.group.status}
    if len(statuses) > 1:
        numbers = ", ".join(str(row.number) for row in asked[:_MOST_TOLD])
        raise UserError(f"{path}: rows {numbers}: have one label, but more than one status")
    return into, statuses.pop() if statuses else into.status
