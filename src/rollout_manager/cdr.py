"""The stamp of a serialised message, read and written without decoding the rest."""

import struct

from rollout_manager.exceptions import BagError
from vla_policy_node.spec import NANOSECONDS


def stamp_of_cdr(cdr: bytes) -> int:
    """The header's stamp in ns of a serialised message that begins with a std_msgs/Header.

    Raises:
        BagError: too short to hold one.
    """
    seconds, rest = struct.unpack_from(_stamp_format(cdr), cdr, 4)
    return int(seconds) * NANOSECONDS + int(rest)


def with_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """Such a message with another stamp. Raises: BagError: as `stamp_of_cdr`."""
    changed = bytearray(cdr)
    struct.pack_into(_stamp_format(cdr), changed, 4, *divmod(stamp_ns, NANOSECONDS))
    return bytes(changed)


def _stamp_format(cdr: bytes) -> str:
    if len(cdr) < 12:
        raise BagError(f"message of {len(cdr)} bytes has no header")
    return "<iI" if cdr[1] & 1 else ">iI"
