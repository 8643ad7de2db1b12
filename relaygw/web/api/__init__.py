"""What endpoints for programs share, and the gateway's own API."""
