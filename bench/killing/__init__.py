"""The fault campaign behind bench/kill: what is sent, what is taken, who dies.

| module | what lives there |
|---|---|
| `sink` | a process: the provider, tells of each final dot read and each 250 written |
| `clients` | a process: sends messages, tells how each ends |
| `backlog` | how much the clients may send |
| `programs` | starting and ending these two |
| `servers` | what can be killed |
| `controls` | relaygw with faults that have to be found |
| `queue_view` | the server's queue and lifelines, read only |
| `sink_watch` | follows the history while the campaign runs |
| `strike` | one kill: who dies, what was in flight, when service is back |
| `campaign` | the order of kills and the processes around them |
| `blows` | what was in doubt at each kill, and what came again because of it |
| `table` | the result as text |
| `program` | the command line |
"""
