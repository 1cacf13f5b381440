"""The classifier, its training step, and what is made of it afterwards."""

import shortline  # noqa: F401  (first of all: Ctrl-C is answered from here on)
