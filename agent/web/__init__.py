"""The agent's side of the web page: its listener, its process, who is logged in at it, and what they may."""
