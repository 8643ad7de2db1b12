"""The configuration: its model, where values come from, and secrets by reference."""
