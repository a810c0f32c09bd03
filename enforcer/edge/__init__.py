"""Sockets, TLS, clocks: the only place that does I/O for the layers."""
