"""Escrow keys: their files, shares and pages, and what they open."""
