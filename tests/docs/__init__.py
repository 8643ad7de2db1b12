"""Documentation that must agree with the code."""
