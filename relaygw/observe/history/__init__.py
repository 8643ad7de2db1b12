"""Counts of the last days, kept in the queue's database: added up by all instances.

Unlike metrics they need nobody who scrapes, and outlive restarts. What is counted here is written
each few seconds; a queue that is away costs nothing but the memory for what was counted meanwhile.
"""
