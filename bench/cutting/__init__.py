"""Power cuts, behind bench/power: a gateway under load on a disk that can be cut at any moment.

| module | what lives there |
|---|---|
| `disk` | a process: a block device that remembers each write and each flush |
| `cuts` | from its log the disk as a cut may leave it |
| `volume` | a file system on such a disk, and on an image of it |
| `callers` | a process: programs that send by the sendmail command |
| `unsynced` | the gateway as a control: it does not sync its commits |
| `load` | the gateway, its database and everyone around it, until the cut |
| `look` | what is on an image, by the gateway's own code |
| `verdict` | what an image proves |
| `table` | the result as text |
| `program` | the command line |

Clients, provider, messages and journals are those of `bench.killing`.
"""
