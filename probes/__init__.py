"""The eBPF programs of Weir, their loader and the ctypes door to libbpf."""
