"""Identity providers: flows, keys and tokens, in a process of their own.  Imported by nothing but that process."""
