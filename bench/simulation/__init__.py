"""Delivery workers, a front and providers in one seeded loop: see docs/decisions/0022."""
