"""The leak gate: no volume key and no PIN anywhere but where it belongs.

``gate.Gate`` follows processes of hwkm and keeps what they print, log, store and show of
themselves while they run; ``spellings`` knows how bytes can be written down. ``test_gate`` proves
that the gate finds what is there, ``test_leaks`` that nothing is.
"""
