"""What the gateway tells the outside: the mail log. May import `mail` and `errors`."""
