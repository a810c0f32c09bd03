"""Cedar policies, their evaluation, and masks: pure functions."""
