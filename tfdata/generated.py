"""The generated corpus that is trained on where no data is named, kept in the cache."""

from __future__ import annotations

from pathlib import Path

from shortline import __version__
from tfdata.ingest import cache_folder
from tfdata.lock import alone_beside
from tfdata.synthetic import write_corpus


def generate_cached(num_docs: int) -> Path:
    """A Parquet file of so many documents in 60 classes; made where the cache has none."""
    corpus = cache_folder() / f"generated-{__version__}-{num_docs}.parquet"
    if not corpus.exists():
        with alone_beside(corpus):
            if not corpus.exists():  # another process may have made it meanwhile
                print(f"generating a corpus of {num_docs:,} documents: {corpus}", flush=True)
                write_corpus(corpus, num_docs)
    return corpus
