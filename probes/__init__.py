"""eBPF: bpf/ is compiled by loader.py (the only importer of bcc), attached and read through libbpf.py."""
