"""What operators do: change queued mail, let captured mail go, hold a provider; and what they see.

The only code that changes mail on somebody's behalf; every change leaves a line in the audit
trail. Beside it what operators look at: the state of everything (`status`), the story of a message
(`story`). Every function raises StoreUnavailable. May import `store`'s protocols, `upstream` for
what replies mean, `policy`, `settings`, `mail` and `errors`.
"""
