"""The commands of this package, a file for each; the command line of the gateway finds them.

May import everything below it, and what all commands share.
"""
