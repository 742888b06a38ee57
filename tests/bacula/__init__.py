"""Tests against the real Bacula 15: its daemons in a Debian chroot call hwkm as users' would."""
