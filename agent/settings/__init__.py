"""The configuration's fields: what they may hold, where they stand, what is advised.

agent/config.py joins them.
"""
