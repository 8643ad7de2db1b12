"""How the gateway is doing: the first page, health, metrics, providers."""
