"""The folder of a labelling: a subfolder a step, with Parquet files of these schemas.

Legend: R documents (rows of the input), P points (distinct masked texts), C clusters. Row i of a
file of documents is row i of the input; row i of a file of points is point i.
"""

from __future__ import annotations

import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        ("text", pa.string()),  # cleaned, not masked; null: the input has none, or none is left
        ("point", pa.int32()),  # null where the text is
    ]
)
"""clean/documents.parquet, R rows."""

POINTS = pa.schema(
    [
        ("masked", pa.string()),
        ("key", pa.uint64()),  # a hash of the masked text; the journal has it as `key_name`
        ("weight", pa.int32()),  # documents that are this point
        ("first_row", pa.int64()),  # the first of them
    ]
)
"""clean/points.parquet, P rows, by first sight."""

ASSIGNED = pa.schema([("cluster", pa.int32())])
"""cluster/, merge/ and decide/points.parquet, P rows: null is noise."""

CLUSTERS = pa.schema(
    [
        ("cluster", pa.int32()),  # the number that ASSIGNED has
        ("key", pa.string()),  # the name of its representative's key
        ("label", pa.string()),  # made of its words, no two alike
        ("size", pa.int64()),  # documents
        ("num_points", pa.int32()),
        ("cohesion", pa.float32()),  # mean cosine of its documents' codes to their mean
        ("representative", pa.string()),  # the masked text nearest to the mean
        ("words", pa.list_(pa.string())),  # that set it apart, best first
        ("examples", pa.list_(pa.string())),  # cleaned texts, from the most typical to the least
        ("neighbours", pa.list_(pa.int32())),  # the clusters nearest to it, nearest first
        ("similarities", pa.list_(pa.float32())),  # cosine to each of these
    ]
)
"""merge/clusters.parquet, C rows, the largest first."""

MERGES = pa.schema(
    [
        ("cluster_a", pa.int32()),  # of cluster/points.parquet; null: the text was noise
        ("cluster_b", pa.int32()),
        ("merged", pa.int32()),  # what both are in merge/points.parquet
        ("ratio", pa.float32()),  # difflib's, of the two texts that decided
        ("text_a", pa.string()),
        ("text_b", pa.string()),
    ]
)
"""merge/merges.parquet: the evidence, a row a pair of texts that joined two groups."""

DECIDED = pa.schema(
    [
        ("cluster", pa.int32()),  # the number that decide/points.parquet has
        ("key", pa.string()),
        ("label", pa.string()),  # two clusters may have one label: they are one class
        ("size", pa.int64()),
        ("dropped", pa.bool_()),  # its documents get no label
        ("confirmed", pa.bool_()),  # somebody has looked at it
    ]
)
"""decide/clusters.parquet: all clusters that are left when the journal has been applied."""

DUPLICATES = pa.schema(
    [
        ("duplicate_of", pa.int64()),  # the row kept in its place; null: kept, or without a label
        ("distance", pa.int32()),  # Damerau-Levenshtein edits between the two
    ]
)
"""dedupe/documents.parquet, R rows."""

RESULT_NAMES = ("cluster", "label", "duplicate_of")
"""What labelled.parquet has after the input's columns: int32, string, int64."""


def key_name(key: int) -> str:
    """A point's key as the journal and the page write it: 16 hexadecimal digits.

    >>> key_name(255)
    '00000000000000ff'
    """
    return f"{key:016x}"
