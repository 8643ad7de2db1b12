"""`/api/gateway/v1`: the queue, providers and what is watched, for programs; described, too."""
