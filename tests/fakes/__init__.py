"""Real servers and clients that tests run relaygw against."""
