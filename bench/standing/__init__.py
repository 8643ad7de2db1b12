"""Figures of relaygw on its own: latency, big queues, restart, fairness, memory, idling."""
