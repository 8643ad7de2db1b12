"""Mutation: small changes of the code, one at a time, each of which some test has to notice.

| module | what lives there |
|---|---|
| `points` | where a module can be changed, and how |
| `plugin` | in pytest: which test calls which function; the change put in place of the module |
| `patch` | the change put in place in functions that are loaded |
| `forks` | work in processes of its own, that may fail, hang and litter |
| `room` | in pytest: runs collected tests again and again, each time with a change |
| `seeds` | runs seeds of the simulation again and again, each time with a change |
| `program` | the command line of bench/mutate: chooses changes, and counts what is noticed |
"""
