"""The agent's side of the metrics: its listener, its process, and the figures that this is given."""
