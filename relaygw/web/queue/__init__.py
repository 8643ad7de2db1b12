"""The queue for people: the list, one message and its story, changes; sources; the audit trail."""
