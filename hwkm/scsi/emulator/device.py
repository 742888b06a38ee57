"""The drive while one command runs: its memory, its tape, and the nexus that asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwkm.scsi.emulator.cartridges import KINDS, can_write
from hwkm.scsi.emulator.profiles import profile_with
from hwkm.scsi.emulator.refusal import Reason, Refusal
from hwkm.scsi.emulator.state import ALL_I_T_NEXUS, LOCAL, Nexus, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.scsi.emulator.cartridges import Kind
    from hwkm.scsi.emulator.profiles import Algorithm, Profile
    from hwkm.scsi.emulator.state import Cartridge, State
    from hwkm.scsi.emulator.tape import MediumObject, Tape

COUNTER_WRAP = 1 << 32
LIE_LTO_3 = "lto-3-medium"


@dataclass(slots=True)
class Device:
    """What the commands work on. ``host`` is the I_T nexus that sent one, "" for none."""

    state: State
    tape: Tape
    host: str
    profile: Profile = field(init=False)

    def __post_init__(self) -> None:
        self.profile = profile_with(self.state.profile, tuple(self.state.quirks))
        if self.host:
            self.state.nexuses.setdefault(self.host, Nexus())

    @property
    def nexus(self) -> Nexus:
        """What is kept for the nexus that asks."""
        return self.state.nexuses[self.host]

    def others(self) -> Iterator[tuple[str, Nexus]]:
        """Yield every nexus but the one that asks."""
        for name, nexus in self.state.nexuses.items():
            if name != self.host:
                yield name, nexus

    def lies(self, name: str) -> bool:
        """Return whether the drive was told to lie so."""
        return name in self.state.lies

    # The cartridge

    @property
    def cartridge(self) -> Cartridge | None:
        """The cartridge that is ready; None if there is none."""
        state = self.state
        return state.cartridges[state.inside] if state.mounted and not state.gone else None

    def mounted(self) -> Cartridge:
        """Return the cartridge that is ready.

        :raises Refusal: if there is none.
        """
        found = self.cartridge
        if found is not None:
            return found
        only_loaded = self.state.inside and not self.state.gone
        raise Refusal(Reason.LOAD_NEEDED if only_loaded else Reason.NO_MEDIUM)

    def medium(self, cartridge: Cartridge) -> Kind:
        """Return what kind of medium the drive takes a cartridge for."""
        return KINDS["lto-3"] if self.lies(LIE_LTO_3) else cartridge.kind

    def next_object(self) -> MediumObject | None:
        """Return the object that the tape stands before; None at the end of data."""
        return self.tape.get(self.mounted().barcode, self.state.position)

    # Encryption

    @property
    def externally_managed(self) -> bool:
        """Whether hosts may not set keys."""
        return self.profile.externally_managed or self.state.managed

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """The algorithms that page 0010h describes, given the cartridge."""
        empty = self.profile.empty if self.cartridge is None else ()
        return empty or self.profile.algorithms

    @property
    def valid_for_volume(self) -> bool:
        """AVFMV: whether the algorithms can be used with the cartridge."""
        cartridge = self.cartridge
        return cartridge is not None and self.medium(cartridge).encrypts

    @property
    def takes_writes(self) -> bool:
        """Whether this drive writes on a cartridge of that generation, where one is loaded."""
        cartridge = self.cartridge
        return cartridge is not None and can_write(self.profile, self.medium(cartridge))

    def algorithm(self, index: int) -> Algorithm | None:
        """Return the algorithm with an index."""
        return next((one for one in self.algorithms if one.index == index), None)

    @property
    def parameters(self) -> Parameters:
        """The parameters in force for the nexus that asks (SSC-5, section 4.2.22)."""
        own = self.nexus.local if self.nexus.scope == LOCAL else self.state.shared
        return own or Parameters(counter=self.state.counter)

    def next_counter(self) -> int:
        """Move the key instance counter on, and return it."""
        if not self.lies("counter-frozen"):
            self.state.counter = (self.state.counter + 1) % COUNTER_WRAP
        return self.state.counter

    def sets(self) -> Iterator[Parameters]:
        """Yield every set of parameters."""
        if self.state.shared is not None:
            yield self.state.shared
        for nexus in self.state.nexuses.values():
            if nexus.local is not None:
                yield nexus.local

    def drop(self, parameters: Parameters) -> None:
        """Forget a set of parameters: the defaults are in force again where it was."""
        if self.state.shared is parameters:
            self.state.shared = None
        for nexus in self.state.nexuses.values():
            if nexus.local is parameters:
                nexus.local = None
        self.next_counter()

    def announce_change(self, scope: int) -> None:
        """Tell the other nexuses that use encryption that the shared parameters changed."""
        if scope != ALL_I_T_NEXUS:
            return
        for _, nexus in self.others():
            if nexus.uses_encryption and nexus.scope != LOCAL:
                nexus.attend(Reason.PARAMETERS_CHANGED)
