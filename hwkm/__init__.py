"""hwkm: a hardware-backed key manager for encrypted backup volumes."""

__version__ = "0.1.0"
