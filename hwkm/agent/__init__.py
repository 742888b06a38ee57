"""The agent: one long-lived process that owns the token, and the way to ask it for keys."""
