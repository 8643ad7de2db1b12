"""What operators do: change queued mail, let captured mail go, hold a provider; and what they see.

The only code that changes mail on somebody's behalf; every change leaves a line in the audit
trail. Every function raises StoreUnavailable.
"""
