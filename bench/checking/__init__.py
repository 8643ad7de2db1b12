"""The checker behind bench/check: what a history proves.

| module | what lives there |
|---|---|
| `facts` | the events of a history as facts |
| `checker` | what became of each message, and what must not be |
| `twice` | what was sent more than once, and what explains it |
| `rules` | leases, limits of providers, staging |
| `report` | the result, as text and as JSON |
| `program` | the command line |
"""
