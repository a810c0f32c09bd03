"""The compiled modules: the same files run uncompiled."""
