"""What may be wrong with labelled texts: checks from Arrow arrays to findings."""
