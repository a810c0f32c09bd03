"""HTTP/1.1 towards both sides, for every protocol that is spoken over it.

    messages   heads as values; what of them is taken and what is refused
    codec      h11, both ways: the one importer of it
    exchange   what a protocol says of one request and its answer
    layer      the state machine that the edge runs
"""
