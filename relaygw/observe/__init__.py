"""What the gateway tells the outside: `events`, who reads them, and the log's forms and outlets."""
