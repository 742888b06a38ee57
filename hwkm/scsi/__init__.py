"""SCSI to the tape drive: transports, pages, sense, and the encryption session (SPC-5, SSC-5).

Nothing here knows of tokens, keystores or policies.
"""
