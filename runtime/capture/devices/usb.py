"""The reset of a USB camera: what pulling its plug does, without a hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

USBDEVFS_RESET = 0x5514  # _IO('U', 20) of <linux/usbdevice_fs.h>


def usb_device_of(
    video: str | Path, sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev")
) -> Path | None:
    """The USB device file behind a video device (or a link to it); None where it is not on USB."""
    name = Path(os.path.realpath(video)).name
    place = Path(os.path.realpath(sys_root / "class" / "video4linux" / name / "device"))
    for folder in (place, *place.parents):
        if folder == sys_root or not folder.is_relative_to(sys_root):
            return None
        bus, device = folder / "busnum", folder / "devnum"
        if bus.is_file() and device.is_file():
            return dev_root / "bus" / "usb" / f"{int(bus.read_text()):03d}" / f"{int(device.read_text()):03d}"
    return None


def reset_usb_device(
    video: str | Path,
    *,
    find: Callable[[str | Path], Path | None] = usb_device_of,
    ioctl: Callable[[int, int, int], object] | None = None,
) -> bool:
    """Reset the USB device behind a video device; False where there is none or the kernel refuses."""
    device = find(video)
    if device is None:
        return False
    if ioctl is None:
        import fcntl

        ioctl = fcntl.ioctl
    try:
        file = os.open(device, os.O_WRONLY)
    except OSError:
        return False
    try:
        ioctl(file, USBDEVFS_RESET, 0)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
