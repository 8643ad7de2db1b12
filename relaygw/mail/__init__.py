"""What mail is: addresses, content, replies, states and outcomes.

Pure values and functions, no I/O and no clock. May import `errors` only.
"""
