"""Transcripts of the command line, and the runner that holds the program to them.

A transcript is a text file::

    # A comment.
    $ VOLUME_NAME=Vol-0001 hwkm volume show Vol-0001
    generation 1, key {hex}, created {time}
    2> one line that was written to stderr
    [exit 1]

After a command stand the lines it prints: first those of stdout, then those of stderr marked with
``2> ``, then the exit status where it is not 0. A command goes to ``/bin/sh``; one that ends in a
backslash goes on in the next line. All commands of a file share one temporary directory, which is
their working directory and their home and is shown as ``$HOME_DIR``; in it lies an empty SoftHSM
installation of their own. ``{hex}``, ``{base64}``, ``{time}``, ``{int}``, ``{size}``, ``{path}``
and ``{any}`` stand for what differs from run to run.
"""
