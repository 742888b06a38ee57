"""Encryption drivers: who encrypts a volume, and the proof that it is done."""
