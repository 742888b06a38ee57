"""The drives that these tests run on: mhvtl's own, if any, and a stand-in of each kind."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from hwkm.scsi.devices import open_device
from hwkm.scsi.worker import WorkerTransport
from tests.drive.sources import take_out_and_in
from tests.drive.station import Station
from tests.mhvtl.models import MODELS, TD5, Model
from tests.mhvtl.stand_in import create, open_stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.mhvtl.find import Unit
    from tests.mhvtl.library import Library


@dataclass(frozen=True)
class Made:
    """A stand-in; ``suits``: its cartridge can be encrypted."""

    name: str
    model: Model
    barcode: str = "HWK001L5"
    suits: bool = True
    sort: str = "stand-in"

    @contextmanager
    def station(self, folder: Path) -> Iterator[Station]:
        device = create(folder / "stand-in", self.model, self.barcode, suits=self.suits)
        with closing(WorkerTransport(device, opener=open_stand_in)) as transport:
            yield Station(
                name=self.name,
                sort=self.sort,
                serial=f"XYZZY_{self.model.name.upper()}",
                transport=transport,
                runtime=_runtime(folder),
                reopen=lambda: open_stand_in(device),
                reload=take_out_and_in if self.barcode else None,
            )


@dataclass(frozen=True)
class Found:
    """A drive of mhvtl's."""

    unit: Unit
    library: Library = field(compare=False)
    sort: str = "mhvtl"

    @property
    def name(self) -> str:
        return f"{self.unit.identity.product}-{self.unit.identity.serial}".replace(" ", "_")

    @contextmanager
    def station(self, folder: Path) -> Iterator[Station]:
        device = str(self.unit.node.sg)
        with closing(WorkerTransport(device)) as transport:
            station = Station(
                name=self.name,
                sort=self.sort,
                serial=self.unit.identity.serial,
                transport=transport,
                runtime=_runtime(folder),
                reopen=lambda: open_device(device),
                tape=self.unit.node.tape,
            )
            with station.session.any_cartridge():
                if not station.session.is_ready():
                    self.library.load(self.unit)
            if self.library.has(self.unit):
                station.reload = self._reload
            yield station

    def _reload(self, station: Station) -> None:
        with station.session.any_cartridge():
            self.library.reload(self.unit)
            assert station.session.is_ready()


STAND_INS = (
    *(Made(f"stand-in-{one.name}", one) for one in MODELS),
    Made("stand-in-td5-lto3-cartridge", TD5, "HWK001L3", suits=False),
    Made("stand-in-td5-empty", TD5, ""),
)

Source: TypeAlias = Made | Found


def _runtime(folder: Path) -> Path:
    path = folder / "run"
    path.mkdir()
    return path
