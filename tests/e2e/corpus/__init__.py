"""Bad input against a running gateway: bytes as given, exact answers, what reached the provider."""
