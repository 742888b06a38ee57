"""The Encryption Command as Bacula runs it: whole processes on a real token, and all that can fail.

``home.Home`` is an installation of its own in a folder; its ``getkey`` starts ``hwkm getkey`` as
the Storage Daemon does and checks what must hold for every call. ``shim.c`` is a PKCS#11 module
that misbehaves on demand. ``replies`` reads answers by Bacula's rules, not by hwkm's.
"""
