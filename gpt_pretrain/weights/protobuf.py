"""Protocol buffers' wire format (protobuf.dev/programming-guides/encoding), as far as a bundle needs it."""

from collections.abc import Iterator


class MalformedError(ValueError):
    """Bytes that are not what they should be; who knows the file makes an ArtifactError of it."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of at most 64 bits, and where it ends."""
    value = 0
    for index in range(10):  # octets of 7 bits each, the lowest first: ten hold 64 bits, and six more
        if at + index >= len(data):
            raise MalformedError("a number is cut short")
        octet = data[at + index]
        value |= (octet & 0x7F) << 7 * index
        if octet < 0x80:  # without the bit that says that more follow
            if value >> 64:
                break
            return value, at + index + 1
    raise MalformedError("a number has more than 64 bits")


def write_varint(value: int) -> bytes:
    """A number of 0 or more, 7 bits an octet."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: varints and fixed numbers as int, the rest as bytes."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        # 1 and 5 are fixed numbers, 2 is bytes after their length; 3 and 4, groups, are deprecated.
        match tag & 7:
            case 0:
                number, at = read_varint(data, at)
                yield tag >> 3, number
                continue
            case 1:
                length = 8
            case 2:
                length, at = read_varint(data, at)
            case 5:
                length = 4
            case kind:
                raise MalformedError(f"a field has the unknown kind {kind}")
        if length > len(data) - at:
            raise MalformedError("a field is cut short")
        value, at = data[at : at + length], at + length
        yield tag >> 3, value if tag & 7 == 2 else int.from_bytes(value, "little")


def number_field(field: int, value: int) -> bytes:
    """A varint field; zero, the default, is not written."""
    return write_varint(field << 3) + write_varint(value) if value else b""


def bytes_field(field: int, value: bytes) -> bytes:
    """A field of bytes after their length: a text, or a message inside."""
    return write_varint(field << 3 | 2) + write_varint(len(value)) + value


def fixed32_field(field: int, value: int) -> bytes:
    """A field of four bytes, little-endian; zero is written too."""
    return write_varint(field << 3 | 5) + value.to_bytes(4, "little")
