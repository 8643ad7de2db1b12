"""The fault campaign behind bench/kill: what is sent, what is taken, who dies, what is proven.

| module | what lives there |
|---|---|
| `message` | the numbered messages, and the digest by which damage shows |
| `journal` | files of events, one write a line, and reading them while they grow |
| `sink` | a process: the provider, logs each final dot read and each 250 written |
| `clients` | a process: sends messages, logs each step of each |
| `backlog` | how much the clients may send |
| `programs` | starting and ending these two |
| `queue_view` | the gateway's queue and lifelines, read only |
| `sink_watch` | follows the sink while the campaign runs |
| `strike` | one kill: who dies, what was in flight, when service is back |
| `campaign` | the order of kills and the processes around them |
| `evidence` | the logs as facts |
| `doubts` | what was in doubt at each kill, and what it explains |
| `verifier` | what the facts prove; works on the files alone |
| `table` | the result as text |
| `program` | the command line |
"""
