"""All that agent and enforcer share: the structs both sides know and the messages between them.

Nothing here does I/O.  `owner`, `target` and `credential` are nouns; `messages` is the enumerated set of what may be
asked; `journal` is the framing of the files that the recorder takes.
"""
