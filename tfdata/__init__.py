"""From raw text files to padded batches on the device."""
