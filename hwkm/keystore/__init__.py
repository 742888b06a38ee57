"""The keystore: volumes, generations, envelopes, master-key records, events.

Never a key in clear. Nothing is overwritten: a new label adds a generation, a new wrapping adds a
revision of an envelope, and events are only ever added.
"""
