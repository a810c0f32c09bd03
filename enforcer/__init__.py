"""The unprivileged side of Weir: protocol layers, the gate, the journal and the recording."""
