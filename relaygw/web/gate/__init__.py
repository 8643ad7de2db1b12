"""Who may ask for what: hosts, origins, logins, sessions, tokens, roles."""
