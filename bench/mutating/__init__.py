"""Mutation: small changes of the code, one at a time, each of which some test has to notice.

| module | what lives there |
|---|---|
| `points` | where a module can be changed, and how |
| `plugin` | in pytest: which test calls which function; the change put in place of the module |
| `program` | the command line of bench/mutate: chooses changes, runs the tests that may notice |
"""
