"""The web role over HTTP, by subject; pages and the packages named `api` do not know each other."""
