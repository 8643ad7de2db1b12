"""The worst that a stranger can write, thousands of times, and how long others wait meanwhile.

`bench/hostile` sends heads, bounce mails, replies and events up to the largest size that is allowed
through a gateway of real processes. The texts are also those of the tests of time by size.
"""
