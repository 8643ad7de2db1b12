"""What mail is: addresses, content, replies, states and outcomes.

Pure values and functions without I/O; only `clock` reads the time. May import `errors` only.
"""
