"""pyscsi on top of any of hwkm's ways to a device.

pyscsi's own device class holds the interpreter during a command, waits for half an hour, drops
every CHECK CONDITION and leaves stale bytes in data-in. Its command classes and decoders are good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pyscsi.pyscsi.scsi_enum_command import spc

from hwkm.scsi.transport import DEFAULT_SECONDS, CheckConditionError, Command

if TYPE_CHECKING:
    from hwkm.scsi.transport import Transport

_LONG_SECONDS = {"MOVE_MEDIUM": 1200.0, "EXCHANGE_MEDIUM": 1200.0, "READ_ELEMENT_STATUS": 300.0}
"""A changer may take an inventory first, and moving a cartridge takes minutes."""


class PyscsiDevice:
    """What pyscsi's ``SCSI`` takes for a device; its commands end in hwkm's errors.

    ``opcodes`` and ``devicetype`` are pyscsi's to set, once it has asked the device for its type.
    """

    def __init__(self, transport: Transport) -> None:
        """Pass pyscsi's commands on to ``transport``; closing this closes it."""
        self.opcodes: Any = spc
        self.devicetype: int | None = None
        self._transport = transport

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def execute(self, cmd: Any, en_raw_sense: bool = False) -> None:
        """Run one of pyscsi's commands; ``cmd.datain`` keeps its length, zeros after what came.

        ``cmd.sense`` is set if the device refused it, and with ``en_raw_sense``, as later versions
        of pyscsi call it, ``cmd.raw_sense_data`` too.

        :raises CheckConditionError, StatusError, TransportError: as the transport does.
        """
        allocation = len(cmd.datain)
        cmd.datain = bytearray(allocation)
        try:
            data = self.transferred(cmd)
        except CheckConditionError as error:
            cmd.sense = error.sense.raw
            if en_raw_sense:
                cmd.raw_sense_data = error.sense.raw
            raise
        cmd.datain[: len(data)] = data

    def transferred(self, cmd: Any) -> bytes:
        """Run one of pyscsi's commands, and return the data that came and no more.

        :raises CheckConditionError, StatusError, TransportError: as the transport does.
        """
        command = Command(
            name=cmd.opcode.name.replace("_", " "),
            cdb=bytes(cmd.cdb),
            data_out=bytes(cmd.dataout),
            allocation=len(cmd.datain),
            seconds=_LONG_SECONDS.get(cmd.opcode.name, DEFAULT_SECONDS),
        )
        return self._transport.execute(command)

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()
