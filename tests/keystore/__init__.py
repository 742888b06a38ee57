"""The keystore, on real SQLite files, a real PostgreSQL and a real SoftHSM.

What is to be proved: every answer ever given can be given again, and none was given without its
event.
"""
