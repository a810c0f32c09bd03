"""What a connection's channels do: each decides what it asks, and passes on what was permitted.

    flow        windows, order and ends of one channel, between its two sides
    replies     answers in the order in which they were asked for
    tunnel      bytes to somewhere else: forwards of ports and sockets, agents, X11
    courses     what runs in a session's channel: streams as they are, files
    session     a session's channel: a command, a shell, a subsystem
"""
