"""Logs of the supervised processes: whole in a rotated file, short and coloured on the console."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from rich.text import Text

_KEPT_FILES = 3
_LINE_MAX_BYTES = 65_536
_HIDDEN_KEYS = frozenset({"event", "level", "timestamp", "logger", "process", "trace_id", "span_id", "color_message"})
_LEVEL_STYLES: Final = {"warning": "yellow", "error": "bold red", "critical": "bold red"}
_NAME_STYLES: Final = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green", "bright_magenta")
_NAME_WIDTH = 13


class LogFile:
    """A file that is set aside as <name>.1 and begun anew when it reaches its size; three older ones are kept."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open the file for appending."""
        self.path = path
        self._max_bytes = max_bytes
        self._stream: IO[bytes] = self._open()
        self._size_bytes = path.stat().st_size

    def write(self, line: bytes) -> None:
        """Append one line, given without its end."""
        if self._size_bytes + len(line) + 1 > self._max_bytes and self._size_bytes > 0:
            self._rotate()
        self._stream.write(line + b"\n")
        self._stream.flush()
        self._size_bytes += len(line) + 1

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _open(self) -> IO[bytes]:
        self.path.touch(mode=0o600)
        return self.path.open("ab")

    def _rotate(self) -> None:
        self._stream.close()
        for number in range(_KEPT_FILES, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number}"))
        self._stream = self._open()
        self._size_bytes = 0


class LineSplitter:
    """Cuts what a process writes into lines. A line that never ends is cut at 64 KiB, so memory stays bounded."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        """Hand each line, without its end, to `on_line`."""
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line.rstrip(b"\r"))
        while len(self._rest) > _LINE_MAX_BYTES:
            self._on_line(self._rest[:_LINE_MAX_BYTES])
            self._rest = self._rest[_LINE_MAX_BYTES:]

    def end(self) -> None:
        """Hand over what came without a line end."""
        if self._rest:
            self._on_line(self._rest)
            self._rest = b""


def console_line(name: str, index: int, line: bytes) -> Text:
    """A line as the console shows it: the process in its colour, then the text, or the fields of a JSON object."""
    text = Text(f"{name:<{_NAME_WIDTH}}", style=_NAME_STYLES[index % len(_NAME_STYLES)])
    text.append("│ ", style="dim")
    decoded = line.decode(errors="replace")
    try:
        document = json.loads(decoded)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "event" not in document:
        text.append(_harmless(decoded))
        return text
    level = str(document.get("level", "info"))
    text.append(_harmless(str(document["event"])), style=_LEVEL_STYLES.get(level, ""))
    for key, value in document.items():
        if key not in _HIDDEN_KEYS:
            text.append(f" {_harmless(key)}=", style="dim")
            # Of a traceback, the line that says what happened.
            text.append(_harmless((str(value).splitlines() or [""])[-1]))
    return text


def _harmless(text: str) -> str:
    """Whatever a process prints must not steer the terminal."""
    return "".join(character for character in text if character.isprintable() or character == "\t")
