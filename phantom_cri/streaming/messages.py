"""Messages of the WebSocket channel protocols: a channel number, then bytes, or both as base64 text."""

from __future__ import annotations

from base64 import b64decode, b64encode


def encode(channel: int, chunk: memoryview, base64: bool) -> bytes | str:
    if base64:
        return chr(ord("0") + channel) + b64encode(chunk).decode()
    return b"".join((bytes((channel,)), chunk))


class ChannelReader:
    """Decodes messages, which may be split anywhere."""

    def __init__(self, base64: bool) -> None:
        self._base64 = base64
        self._channel = -1
        self._rest = b""

    def read(self, part: bytes, first: bool, last: bool) -> tuple[int, bytes]:
        """The channel (-1: not known yet) and its bytes. Raises ValueError for invalid base64."""
        if first:
            self._channel, self._rest = -1, b""
        if self._channel < 0 and part:
            self._channel = part[0] ^ ord("0") if self._base64 else part[0]
            part = part[1:]
        return self._channel, self._decode(part, last) if self._base64 else part

    def _decode(self, part: bytes, last: bool) -> bytes:
        text = self._rest + part
        whole = len(text) if last else len(text) // 4 * 4
        self._rest = text[whole:]
        return b64decode(text[:whole], validate=True)
