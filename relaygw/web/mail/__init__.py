"""Content of mail, broken or hostile, read within limits; nothing it links to is ever fetched."""
