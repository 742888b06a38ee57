"""The pages of tape data encryption: SECURITY PROTOCOL IN and OUT, protocol 20h (SSC-5).

Each page is a frozen dataclass with ``parse``. Offsets are the standard's: byte 0 is the first of
PAGE CODE. What a drive gets wrong and can still be read stands in ``problems``.
"""
