"""Sessions of hostile clients against the front, and hostile bytes against its parsers."""
