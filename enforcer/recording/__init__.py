"""Journal, recorder and recording."""
