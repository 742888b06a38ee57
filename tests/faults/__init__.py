"""A token that fails at every call, in every way: what was given can be given again.

``faults.c`` is a PKCS#11 module in front of SoftHSM that fails the calls it is told to; ``faulty``
tells it. ``site`` is an installation whose token is behind it, used as the agent uses one: for a
long time, by one process. ``matrix`` goes through all calls in a process of its own, so that a
crash is a failed test and not the end of all.
"""
