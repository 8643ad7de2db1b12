"""The long run behind bench/soak: steady mail, one fault after the other, and what does not grow.

| module | what lives there |
|---|---|
| `samples` | what is measured of each process and of the database; a CSV |
| `trends` | the slope of each series after the first third, and its bound |
| `schedule` | which fault begins when, by a seed |
| `rig` | what runs: gateway, provider, database, clients, and the witnesses of a fault |
| `faults` | each fault, and what shows that it began and that it ended |
| `doubts` | tells the history of doubts before the retention deletes them |
| `campaign` | the order of it all |
| `controls` | relaygw that leaks, which has to be found |
| `verdict` | what must be so |
| `page` | the series as plots |
| `program` | the command line |
"""
