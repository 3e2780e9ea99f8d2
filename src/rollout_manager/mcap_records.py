"""The records of an MCAP file, read one by one, also of a file that is torn or damaged.

The mcap package needs a whole file with its summary. This reads up to the tear and says where it is, checks every
checksum, and unpacks messages without a call per field. Layout: https://mcap.dev/spec
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Metadata, Schema

from rollout_manager.exceptions import BagError

MAGIC = b"\x89MCAP0\r\n"
FRAME = struct.Struct("<BQ")
"""Opcode and content length, before every record's content."""
MESSAGE = struct.Struct("<HIQQ")
"""Channel, sequence, log time, publish time, before a message's data."""
CHUNK = struct.Struct("<QQQII")
"""First and last log time, uncompressed size, CRC, length of the compression's name."""
FOOTER = struct.Struct("<QQI")


class DamageError(BagError):
    """The file is torn or damaged at byte `offset`."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"byte {offset}: {why}")
        self.offset = offset


@dataclass(frozen=True)
class Record:
    """One record of the file's top level, its content still on disk."""

    opcode: int
    offset: int
    length: int
    """Of the content, which begins 9 bytes after the offset."""

    def content(self, stream: BinaryIO) -> bytes:
        """The content. Raises: DamageError: the file ends before it does."""
        return _read(stream, self.offset + FRAME.size, self.length)


def records(stream: BinaryIO) -> Iterator[Record]:
    """All records up to and including the footer; the caller may move the stream meanwhile.

    Raises:
        DamageError: no MCAP file, or it ends within a record or without a footer.
    """
    size = stream.seek(0, 2)
    if _read(stream, 0, min(size, len(MAGIC))) != MAGIC:
        raise DamageError(0, "no MCAP file: its first bytes are others")
    offset = len(MAGIC)
    while True:
        if offset + FRAME.size > size:
            raise DamageError(offset, "the file ends here, without an MCAP footer")
        opcode, length = FRAME.unpack(_read(stream, offset, FRAME.size))
        end = offset + FRAME.size + length
        if end > size:
            raise DamageError(offset, f"record of {length} bytes, but the file has {size - offset - FRAME.size} more")
        yield Record(opcode, offset, length)
        offset = end
        if opcode == Opcode.FOOTER:
            break
    if _read(stream, offset, size - offset) != MAGIC:
        raise DamageError(offset, "the MCAP footer is not followed by the end of the file")


def chunk_checksum(stream: BinaryIO, record: Record) -> tuple[int, int]:
    """CRC and size of a chunk's uncompressed content, as it states them."""
    _, _, size, crc, _ = CHUNK.unpack(_read(stream, record.offset + FRAME.size, CHUNK.size))
    return crc, size


def unpack_chunk(stream: BinaryIO, record: Record) -> memoryview:
    """A chunk's content, uncompressed and its CRC checked. Raises: DamageError: it is not what was written."""
    content = record.content(stream)
    try:
        _, _, size, crc, name_length = CHUNK.unpack_from(content)
        start = CHUNK.size + name_length
        compression = content[CHUNK.size : start].decode()
        packed = memoryview(content)[start + 8 :]
        data = zstandard.decompress(packed, max_output_size=size) if compression == "zstd" else bytes(packed)
    except (struct.error, zstandard.ZstdError, UnicodeDecodeError, MemoryError) as error:
        raise DamageError(record.offset, f"chunk cannot be unpacked: {error}") from error
    if compression not in ("zstd", ""):
        raise DamageError(record.offset, f"chunk compression '{compression}' is not one of zstd, none")
    if len(data) != size or zlib.crc32(data) != crc:
        raise DamageError(record.offset, "chunk differs from its CRC")
    return memoryview(data)


def chunk_records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Opcode and content of the records in a chunk whose CRC was right. Raises: DamageError: one is cut short."""
    offset, size = 0, len(data)
    while offset < size:
        if offset + FRAME.size > size:
            raise DamageError(offset, "record cut short in its chunk")
        opcode, length = FRAME.unpack_from(data, offset)
        offset += FRAME.size
        if offset + length > size:
            raise DamageError(offset, "record cut short in its chunk")
        yield opcode, data[offset : offset + length]
        offset += length


def parse_schema(content: bytes | memoryview) -> Schema:
    """Raises: DamageError: not a schema record."""
    return _parse(Schema, content)


def parse_channel(content: bytes | memoryview) -> Channel:
    """Raises: DamageError: not a channel record."""
    return _parse(Channel, content)


def parse_metadata(content: bytes | memoryview) -> Metadata:
    """Raises: DamageError: not a metadata record."""
    return _parse(Metadata, content)


def _parse(kind: type, content: bytes | memoryview) -> object:
    try:
        return kind.read(ReadDataStream(BytesIO(content)))  # type: ignore[attr-defined]
    except (struct.error, McapError, UnicodeDecodeError) as error:
        raise DamageError(0, f"{kind.__name__} record is malformed: {error}") from error


def check_sections(stream: BinaryIO) -> None:
    """Check the CRCs of the data and of the summary section, which together cover the file.

    Raises:
        DamageError: a byte differs from what was written.
    """
    summary_start = 0
    for record in records(stream):
        if record.opcode == Opcode.DATA_END:
            (wanted,) = struct.unpack("<I", record.content(stream)[:4])
            _check_crc(stream, 0, record.offset, wanted, "data")
            summary_start = record.offset + FRAME.size + record.length
        elif record.opcode == Opcode.FOOTER:
            content = record.content(stream)
            if len(content) != FOOTER.size or not summary_start:
                raise DamageError(record.offset, "the end of the data section is missing or the footer malformed")
            *_, wanted = FOOTER.unpack(content)
            _check_crc(stream, summary_start, record.offset + FRAME.size + 16, wanted, "summary")


def _check_crc(stream: BinaryIO, start: int, end: int, wanted: int, what: str) -> None:
    stream.seek(start)
    crc, left = 0, end - start
    while left:
        block = stream.read(min(left, 1 << 20))
        crc, left = zlib.crc32(block, crc), left - len(block)
    if crc != wanted:
        raise DamageError(start, f"the {what} section up to byte {end} differs from its CRC")


def _read(stream: BinaryIO, offset: int, length: int) -> bytes:
    stream.seek(offset)
    data = stream.read(length)
    if len(data) != length:
        raise DamageError(offset, f"the file ends {length - len(data)} bytes early")
    return data
