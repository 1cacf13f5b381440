"""From raw text files to padded batches on the device."""

import shortline  # noqa: F401  (first of all: Ctrl-C is answered from here on)
