"""Units of systemd: adopted as workloads, and Weir's own."""
