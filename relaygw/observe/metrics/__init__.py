"""Numbers for Prometheus: counted where things happen, added up when somebody asks.

Each process of a role counts into files of its own (prometheus_client's multiprocess mode) in a
directory of its supervisor, so that one answer covers all of them and what a dead one counted is
kept. Only this package knows the library. A metric that cannot be written never stops mail: a
process without its files counts nothing.
"""
