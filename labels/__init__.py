"""From unlabelled text to labelled shards: clean, encode, cluster, merge, review, dedupe, shards.

Each step is a file of this package, and reads and writes a folder of its own under `--out DIR`;
`labels.folder` has the names and the schemas. *Documents* are the input's rows; *points* are the
distinct masked texts, on which all is done until near-duplicates are looked for.

| step    | reads           | writes                                                              |
|---------|-----------------|---------------------------------------------------------------------|
| clean   | the input       | clean/documents.parquet, clean/points.parquet                       |
| encode  | clean           | encode/codes.npy: float32[P, H]                                     |
| cluster | encode          | cluster/points.parquet: a cluster, or null for noise                |
| merge   | cluster, clean  | merge/points.parquet, merge/clusters.parquet, merge/merges.parquet  |
| review  | merge, clean    | appends to review/journal.jsonl, nothing else                       |
| decide  | merge, journal  | decide/points.parquet, decide/clusters.parquet: after the decisions |
| dedupe  | decide, clean   | dedupe/documents.parquet: what each removed document duplicates     |
| label   | all of these    | labelled.parquet, label/training.parquet                            |
| report  | all of these    | report.html                                                         |
| shards  | label           | shards/, for train.py --data                                        |

Each folder also holds step.json, written last: settings, counts, seconds, and a key made of the
settings and of the keys of the steps before. A step whose key has not changed is not made again;
when one is made anew, those after it are deleted. labels.json has the settings of each, which a
step made by itself takes unless others are given.
"""

import shortline  # noqa: F401  (first of all: Ctrl-C is answered from here on)
