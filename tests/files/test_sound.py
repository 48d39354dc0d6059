"""WAV files as people have them: any width, any number of channels, either header."""

import struct

import numpy as np
import pytest

from perceiver_jax import files

FORMATS = {"pcm": 1, "float": 3, "mulaw": 7}
GUID = b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"


def wav(data, *, bits, channels=1, kind="pcm", extensible=False, rate=8000, extra=b""):
    """The bytes of a WAV file, by its definition alone."""
    block = channels * bits // 8
    tag = 0xFFFE if extensible else FORMATS[kind]
    header = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    if extensible:
        header += struct.pack("<HHIH", 22, bits, (1 << channels) - 1, FORMATS[kind]) + GUID
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + extra
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def pcm(values, bits):
    """Values in [-1, 1) as integers; 8 bits are unsigned."""
    if bits == 8:
        return bytes(int(v * 128) + 128 for v in values)
    return b"".join(
        int(v * 2 ** (bits - 1)).to_bytes(bits // 8, "little", signed=True) for v in values
    )


VALUES = np.array([0, 0.5, -0.5, -1, 0.25, 0.75])


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 24, 32, "float32", "float64"])
def test_every_width(tmp_path, bits, extensible):
    if isinstance(bits, str):
        kind, data, bits = "float", VALUES.astype(bits).tobytes(), int(bits[-2:])
    else:
        kind, data = "pcm", pcm(VALUES, bits)
    (tmp_path / "a.wav").write_bytes(wav(data, bits=bits, kind=kind, extensible=extensible))
    audio, rate = files.read_wav(tmp_path / "a.wav")
    assert (audio.dtype, audio.shape, rate) == (np.float32, (6,), 8000)
    np.testing.assert_allclose(audio, VALUES, atol=1e-7)


@pytest.mark.parametrize("bits", [16, 24])
def test_channels_become_their_mean(tmp_path, bits):
    for channels in (2, 3, 6):
        values = np.random.default_rng(0).integers(-100, 100, (5, channels)) / 128
        data = wav(pcm(values.ravel(), bits), bits=bits, channels=channels, extensible=True)
        (tmp_path / "a.wav").write_bytes(data)
        audio, _ = files.read_wav(tmp_path / "a.wav")
        np.testing.assert_allclose(audio, values.mean(axis=1), atol=1e-6)
    right = np.stack([np.zeros(4), VALUES[:4]], axis=1)
    (tmp_path / "a.wav").write_bytes(wav(pcm(right.ravel(), bits), bits=bits, channels=2))
    np.testing.assert_allclose(files.read_wav(tmp_path / "a.wav")[0], VALUES[:4] / 2)


def test_sound_files(tmp_path):
    audio = np.array([0, 0.5, -1, 1, 2], np.float32)
    files.write_wav(tmp_path / "a.wav", audio, 48000)
    back, rate = files.read_wav(tmp_path / "a.wav")
    np.testing.assert_allclose(back, np.clip(audio, -1, 1), atol=1e-4)
    assert rate == 48000
    with pytest.raises(ValueError, match=r"c\.wav: the samples to write are not all numbers"):
        files.write_wav(tmp_path / "c.wav", np.array([0, np.nan]), 8000)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="no readable WAV"):
        files.read_wav(tmp_path / "b.wav")


def test_other_chunks_and_loud_floats(tmp_path):
    data = np.array([2, -3, 0.5], np.float32).tobytes()
    extra = b"LIST" + struct.pack("<I", 4) + b"INFO" + b"junk" + struct.pack("<I", 2) + b"ab"
    (tmp_path / "a.wav").write_bytes(wav(data, bits=32, kind="float", extra=extra))
    np.testing.assert_array_equal(files.read_wav(tmp_path / "a.wav")[0], [1, -1, 0.5])


def test_a_header_from_before_the_sound(tmp_path):
    """Programs that write to a pipe do not know the sizes."""
    data = GOOD.replace(struct.pack("<I", len(GOOD) - 8), b"\xff" * 4)
    data = data.replace(b"data" + struct.pack("<I", 12), b"data" + b"\xff" * 4)
    (tmp_path / "a.wav").write_bytes(data)
    assert files.read_wav(tmp_path / "a.wav")[0].shape == (3,)


GOOD = wav(pcm(VALUES, 16), bits=16, channels=2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wav(bytes(8), bits=8, kind="mulaw"), r"MULAW.*ffmpeg -i FILE -c:a pcm_s16le"),
        (wav(b"", bits=16), "has no sound in it"),
        (GOOD[:44], "is no readable WAV file: Reached EOF"),
        (GOOD[:36], "is no readable WAV file"),
        (GOOD[:43], "is no readable WAV file"),
        (GOOD[:20], "is no readable WAV file"),
        (GOOD[:46], "is no readable WAV file"),
        (GOOD[:4], "is no readable WAV file"),
        (b"", "is no readable WAV file"),
        (b"ID3" + bytes(60), "is no readable WAV file"),
        (b"RIFF" + bytes(4) + b"WAVE", "is no readable WAV file"),
        (GOOD[:32] + bytes(2) + GOOD[34:], "is no readable WAV file"),  # blocks of no bytes
        (wav(bytes(8), bits=8, kind="float"), "is no readable WAV file"),
        (GOOD[:48], r"is no readable WAV file: Reached EOF prematurely.*ffmpeg"),
        (wav(np.array([0, np.nan], "<f4").tobytes(), bits=32, kind="float"), "not a number"),
        (wav(np.array([0, np.inf], "<f4").tobytes(), bits=32, kind="float"), "infinite"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, data, message):
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        files.read_wav(tmp_path / "a.wav")
    assert "a.wav" in str(error.value) and "\n" not in str(error.value)
