"""SPDY/3.1, as Kubernetes speaks it: streams that the client opens, without windows (github.com/moby/spdystream).

    frames     frames as values, both ways
    blocks     header blocks: zlib with SPDY's dictionary
"""
