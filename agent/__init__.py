"""The root side of Weir: kernel hooks, firewall, launching, whois.  It never parses a peer's bytes."""
