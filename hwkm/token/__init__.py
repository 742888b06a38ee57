"""PKCS#11: tokens, sessions, PINs, master keys. Knows nothing of volumes."""
