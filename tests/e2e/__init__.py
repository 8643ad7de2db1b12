"""End-to-end tests: real role processes, real clients, real providers."""
