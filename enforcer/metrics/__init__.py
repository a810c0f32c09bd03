"""Figures for Prometheus, and whether Weir works, over HTTP.  `rendering` and `site` are pure."""
