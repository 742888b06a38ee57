"""The agent: its parts by themselves, and whole ones on a real token."""
