"""SCSI without a drive: bytes of the standards, the emulator, and a driver at the ioctl."""
