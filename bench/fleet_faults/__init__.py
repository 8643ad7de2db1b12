"""The runs behind bench/fleets: two gateways, a primary and its standby, and one fault each.

| module | what lives there |
|---|---|
| `plans` | what a seed decides: kind, target, way, instant and length of the fault |
| `rig` | what runs: gateways, provider, clients, the pair of databases; who watches |
| `faults` | each fault, and what shows that it began and that it ended |
| `later` | relaygw of a later version, and its schema |
| `fates` | tells the history how the queue has each recipient at the end |
| `campaign` | the order of a run, and of many on one pair |
| `outcome` | what a run came to; how soon a gateway was back |
| `control` | an asynchronous standby that lags: what it loses, and the bound of that |
| `table` | the runs of each kind in a line |
| `program` | the command line |
"""
