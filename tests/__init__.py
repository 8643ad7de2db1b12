"""Tests of relaygw."""
