"""What cuts crews off: slice, nftables rules and probes, who is a crew's, and the watch that keeps it all in place."""
