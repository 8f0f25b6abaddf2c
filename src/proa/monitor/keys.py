"""Recognise the detach key sequence in what a person types, without losing keys that only begin like it."""

from __future__ import annotations

__all__ = ["DetachKeys"]


class DetachKeys:
    """Feeds input through a matcher of one key sequence; sans-IO.

    A prefix of the sequence is held back until the next key decides; a mismatch releases what was held, and the
    key that broke the match may itself begin a new one.
    """

    __slots__ = ("_held", "_sequence")

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = 0

    def feed(self, chunk: bytes) -> tuple[bytes, bool]:
        """Returns (bytes to pass on, True when the sequence completed); bytes after it are dropped."""
        sequence = self._sequence
        if not sequence or (not self._held and sequence[0] not in chunk):
            return chunk, False
        passed = bytearray()
        held = self._held
        for byte in chunk:
            while held and byte != sequence[held]:
                # Release the shortest head of what is held such that the rest is again a prefix.
                shift = 1
                while sequence[shift:held] != sequence[: held - shift]:
                    shift += 1
                passed += sequence[:shift]
                held -= shift
            if byte == sequence[held]:
                held += 1
                if held == len(sequence):
                    self._held = 0
                    return bytes(passed), True
            else:
                passed.append(byte)
        self._held = held
        return bytes(passed), False
