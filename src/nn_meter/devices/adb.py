"""The link ``adb://SERIAL[/path/of/program][?cpus=MASK]``: a phone on which a program that the user put there measures.

A phone has no Python: the worker runs here and drives the program with Android's client ``adb``. Old devices lose exit
statuses (before Android 7 their shells cannot send them), so that each command says its own on its last line; a command
that does not was cut off.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nn_meter.devices.device import Device, counted
from nn_meter.devices.link import Finished, LocalLink, ProcessChannel, addressed, unshelled
from nn_meter.errors import DeviceError
from nn_meter.settings import DEVICE
from nn_meter.storage import legible

_ADDRESS = re.compile(r"adb://(?P<serial>\w[\w.-]*(?::\d+)?)(?P<program>/[^?]+)?(?:\?cpus=(?P<cpus>[0-9A-Fa-f]+))?")
_STATUS = "nn-meter-status="
FOLDER = "/data/local/tmp/nn-meter"
"""Where files of ours lie on a phone."""

_ANSWER_S = 15.0
"""What asks a phone something, or waits for one that restarts its daemon, takes at most."""
_PUSH_S = 120.0
_GRACE_S = 5.0
"""By which the device stops a program before the client here gives up."""
_AWAY = re.compile(r"device '.*' not found|no devices|device offline|device unauthorized")
"""What the client says before it did anything."""
_TIMED_OUT = 124

REFUSALS: tuple[tuple[str, str], ...] = (
    (
        "not executable: .*ELF file|Exec format error",
        "the program is built for another processor; push one for the phone's ABI, {abi}",
    ),
    (
        "inaccessible or not found|: not found|No such file or directory",
        "there is no such program; push it, adb push {name} {program}, or name the one there: adb://SERIAL/path/of/it",
    ),
    ("can't execute: Permission denied|Permission denied", "allow it to be run: adb shell chmod 755 {program}"),
    ("CANNOT LINK EXECUTABLE.*", "push the libraries that it needs beside it, or one that is linked statically"),
)
"""What Android's shell says of a program that it cannot start; what to do about it."""


@dataclass(frozen=True, slots=True)
class AdbLink:
    """A phone by its ``serial``, as ``adb devices`` lists it; empty for the only one. ``program`` is what measures
    there, ``cpus`` the mask of the cores that it may use."""

    address: str
    serial: str = ""
    program: str = ""
    cpus: str = ""
    shares_files: bool = True

    @classmethod
    def at(cls, address: str) -> AdbLink:
        """The link of an address.

        Raises:
            DeviceError: it is none, or there is no program ``adb`` here.
        """
        found = addressed(
            address, _ADDRESS, "adb", package="Android's platform tools",
            forms="adb://SERIAL, with the program there adb://SERIAL/data/local/tmp/benchmark_model, with its cores "
            "adb://SERIAL?cpus=f0",
        )  # fmt: skip
        return cls(address, found["serial"], found["program"] or "", found["cpus"] or "")

    @property
    def worker(self) -> Sequence[str]:
        """This Python."""
        return LocalLink().worker

    def refusal(self, said: str) -> str:
        """Nothing: what ends here ends with a status that tells."""
        return ""

    def open(self, command: Sequence[str]) -> ProcessChannel:
        """Start a program here, which finds the address in its environment."""
        return LocalLink(environment={DEVICE: self.address}).open(command)

    def run(self, command: Sequence[str], *, timeout_s: float) -> Finished:
        """Run a program on the phone to its end, on the cores of ``cpus``.

        Raises:
            DeviceError: no such program, it is for another processor, runs longer, or the phone is gone.
        """
        cores = ["taskset", self.cpus] if self.cpus else []
        limit = ["timeout", f"{timeout_s:.0f}"]
        done = self._shell(shlex.join([*limit, *cores, *command]), timeout_s + _GRACE_S)
        said = f"{done.stdout}\n{done.stderr}"
        if done.status == _TIMED_OUT:
            raise DeviceError(f"{command[0]}: still running after {timeout_s:g} s on {self}; it was stopped")
        if done.status in (126, 127) or "CANNOT LINK EXECUTABLE" in said:
            for pattern, advice in REFUSALS:
                if (found := re.search(pattern, said)) is not None:
                    words = {"program": command[0], "name": Path(command[0]).name, "abi": self._abi()}
                    raise DeviceError(f"{command[0]} on {self}: {legible(found[0])}: {advice.format(**words)}")
        return Finished(unshelled(done.status), done.stdout, done.stderr)

    def put(self, path: Path, folder: str = FOLDER) -> str:
        """Put a file into ``folder`` there; its path.

        Raises:
            DeviceError: it cannot be read, or does not fit there.
        """
        there = f"{folder}/{path.name}"
        self._shell(f"mkdir -p {shlex.quote(folder)}", _ANSWER_S)
        done = self._adb(["push", str(path), there], _PUSH_S)
        if done.status != 0:
            said = re.search(r"error: (.*)", done.stderr + done.stdout)  # beside how many files were pushed
            why = legible(said[1]) if said else _last(done.stderr) or _last(done.stdout)
            self.forget(there)
            raise DeviceError(f"{path.name} cannot be put to {there} on {self} ({why}); free some space there")
        return there

    def forget(self, path: str) -> None:
        """Take a file away; harmless where the phone is gone."""
        with suppress(DeviceError):
            self._shell(f"rm -f {shlex.quote(path)}", _ANSWER_S)

    def asked(self, command: str) -> str:
        """What a command of the phone's shell says, stripped; empty where there is none of that name.

        Raises:
            DeviceError: the phone is gone.
        """
        done = self._shell(command, _ANSWER_S)
        return done.stdout.strip() if done.status == 0 else ""

    def thermal_status(self) -> int | None:
        """``android.os.PowerManager``'s THERMAL_STATUS: 0 is no throttling, 6 a shutdown; ``None`` before Android 10.
        Told as by ``ThermalManagerService.dump`` of Android's frameworks/base."""
        found = re.search(r"^\s*Thermal Status: (\d)", self.asked("dumpsys thermalservice"), re.MULTILINE)
        return int(found[1]) if found else None

    def device(self) -> Device:
        """What the phone says of itself."""
        told = {key: legible(value) for key, value in re.findall(r"\[([\w.]+)\]: \[(.*)\]", self.asked("getprop"))}
        found = re.search(r"MemTotal:\s+(\d+) kB", self.asked("cat /proc/meminfo"))
        memory_kb = counted(found[1]) if found else None
        model = told.get("ro.product.model", "")
        return Device(
            name=model or self.serial,
            maker=told.get("ro.product.manufacturer", ""),
            processor=told.get("ro.soc.model") or told.get("ro.board.platform", ""),
            architecture=told.get("ro.product.cpu.abi", ""),
            cores=counted(self.asked("nproc")),
            processors=self.cpus,
            memory_bytes=memory_kb and 1024 * memory_kb,
            system=f"Android {told.get('ro.build.version.release', '')}".strip(),
            environment={
                "governor": legible(self.asked("cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or None,
                "thermal_status": self.thermal_status(),
            },
        )

    def _abi(self) -> str:
        return legible(self.asked("getprop ro.product.cpu.abi")) or "as getprop ro.product.cpu.abi says"

    def _shell(self, command: str, timeout_s: float) -> Finished:
        done = self._adb(["shell", f"( {command} ); s=$?; echo; echo {_STATUS}$s"], timeout_s)
        stdout, found, status = done.stdout.replace("\r\n", "\n").rpartition(f"\n{_STATUS}")
        code = counted(status)
        if not found or code is None:
            why = _last(done.stderr) or "it says nothing"
            raise DeviceError(f"{self}: lost while {command.split()[0]} ran ({why})")
        return Finished(code, stdout, done.stderr)

    def _adb(self, words: Sequence[str], timeout_s: float) -> Finished:
        """Run the client; a phone that is away is waited for, one of a network called again."""
        client = ["adb", *(("-s", self.serial) if self.serial else ())]
        done = LocalLink().run([*client, *words], timeout_s=timeout_s)
        if done.status == 0 or not _AWAY.search(done.stderr):
            return done
        if ":" in self.serial:
            LocalLink().run(["adb", "connect", self.serial], timeout_s=_ANSWER_S)
        with suppress(DeviceError):
            LocalLink().run([*client, "wait-for-device"], timeout_s=_ANSWER_S)
        done = LocalLink().run([*client, *words], timeout_s=timeout_s)
        if done.status != 0 and _AWAY.search(done.stderr):
            raise DeviceError(
                f"{self} does not answer ({_last(done.stderr)}); see adb devices, allow debugging on its screen, or "
                "plug it in anew"
            )
        return done

    def __str__(self) -> str:
        return f"adb://{self.serial}" if self.serial else "the phone"


def _last(text: str) -> str:
    return legible(next((line.strip() for line in reversed(text.splitlines()) if line.strip()), ""))
