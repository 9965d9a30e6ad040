import pytest

from gpt_pretrain.weights.crc32c import COARSE, FINE, crc32c

P = 0x11EDC6F41  # Castagnoli's polynomial, the highest bit first


def remainder(exponents):
    """Of the sum of x^e by P, over GF(2)."""
    result = 0
    for exponent in (*exponents, 0):
        power = 1
        for _ in range(exponent):
            power <<= 1
            if power >> 32:
                power ^= P
        result ^= power
    return result


def one_bit_at_a_time(data):
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("exponents", [COARSE, FINE])
def test_the_sparse_polynomials_are_multiples_of_castagnolis(exponents):
    assert remainder(exponents) == 0
    assert remainder((*exponents[:-1], exponents[-1] + 1)) != 0


def test_the_published_check_values_come_out():
    # RFC 3720, appendix B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("size", [0, 1, 7, 1671, 1672, 1673, 1680, 1681, 54_216, 54_224, 54_230, 120_001])
def test_folding_gives_what_a_bit_at_a_time_gives(size):
    data = bytes((7 * i + i // 251) % 256 for i in range(size))
    assert crc32c(data) == one_bit_at_a_time(data)


def test_one_flipped_bit_far_from_the_end_changes_the_checksum():
    data = bytearray(9_000_000)  # longer than a chunk
    before = crc32c(data)
    data[12_345] ^= 1
    assert crc32c(data) != before
