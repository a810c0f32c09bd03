"""Holds and the people who answer them."""
