"""What mail is, as pure values; only `clock` reads the time. May import `errors` only."""
