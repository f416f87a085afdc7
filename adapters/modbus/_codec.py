"""What is sent and what comes back: requests encoded once, responses as they came, and what makes one the answer to the other.

pymodbus checks neither function code nor length of a response, and on frames without transaction numbers it would take a late
answer for the next one. So `wrong` compares unit, transaction, function and byte count with those of the request.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pymodbus.framer import FramerAscii
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU


class Response(ModbusPDU):
    """A response as it came: `pdu` from the function code on; `received` in µs; `code` the exception code, 0 for data.

    `short`: well-formed data, but less than asked for.
    """

    rtu_byte_count_pos = 2
    code = 0
    short = False

    def __init__(
        self, pdu: bytes, received: int
    ) -> None:  # the base class's thirteen attributes are for codecs that we do not use
        self.pdu = pdu
        self.received = received

    @property
    def data(self) -> bytes:
        """The data bytes after function code and byte count."""
        return self.pdu[2:]


class Request(ModbusPDU):
    """A read request, encoded once (V1.1b3 §6.1 to §6.4)."""

    answered_by: type[Response] = Response
    may_be_refused = False
    """An exception is an ordinary answer to it, and not counted as an error."""

    def __init__(self, unit: int, function: int, address: int, count: int) -> None:
        super().__init__(dev_id=unit, address=address, count=count)
        self.function_code = function
        self.data_bytes = (count + 7) // 8 if function <= 2 else count * 2
        self.longest = 253 if function > 23 else 2 + self.data_bytes
        """Bytes of the longest answer, from the function code on."""
        self._encoded = struct.pack(">HH", address, count)

    def encode(self) -> bytes:
        """The PDU after the function code."""
        return self._encoded

    def begins(self, data: bytes) -> bool:
        """Whether a response may begin with these bytes, of which the first two (unit and function) are right."""
        return len(data) < 3 or 0 < data[2] <= self.data_bytes

    def judge(self, answer: Response) -> str | None:
        """What is wrong with a response whose function is right; sets `short` of one that is whole."""
        pdu = answer.pdu
        count = pdu[1] if len(pdu) > 1 else 0
        if len(pdu) != count + 2:
            return f"it says {count} data bytes and has {len(pdu) - 2}"
        if count == self.data_bytes:
            return None
        if 0 < count < self.data_bytes and (self.function_code <= 2 or count % 2 == 0):
            answer.short = True
            return None
        return f"it has {count} data bytes, not {self.data_bytes}"


class RawDecoder(DecodePDU):
    """Hands responses on undecoded, and tells the RTU framer where one may begin: only at the unit and function asked for."""

    def __init__(self, now: Callable[[], int]) -> None:
        super().__init__(False)
        self._now = now
        self._request: Request | None = None

    def expect(self, request: Request) -> None:
        """Responses to this request are looked for from now on."""
        self._request = request

    def lookupPduClass(self, data: bytes) -> type[ModbusPDU] | None:
        """The class that knows the length of the RTU frame that begins with `data`, None where none can begin."""
        request = self._request
        if request is None or data[0] != request.dev_id:
            return None
        if data[1] == request.function_code | 0x80:
            return ExceptionResponse
        if data[1] == request.function_code and request.begins(data):
            return request.answered_by
        return None

    def decode(self, frame: bytes) -> ModbusPDU | None:
        """Never None: pymodbus would raise inside the transport."""
        return Response(frame, self._now())


class AsciiFramer(FramerAscii):
    """`:`, unit, function and data as pairs of hexadecimal digits, LRC, CR LF (Serial Line V1.02 §2.5.2.1).

    pymodbus's own gives up everything that has come when there is noise with a colon in it, and raises inside the transport where the
    digits are none. Here a colon begins a frame anew wherever it stands, as the standard says.
    """

    def decode(self, data: bytes) -> tuple[int, int, int, bytes]:
        """(bytes used, unit, 0, PDU) of the first whole frame; an empty PDU where there is none yet."""
        used = 0
        while (end := data.find(self.END, used)) >= 0:
            line = data[used:end].rpartition(self.START)
            used = end + len(self.END)
            if not line[1]:
                continue
            try:
                frame = bytes.fromhex(line[2].decode("ascii"))
            except ValueError:  # UnicodeDecodeError too
                continue
            if len(frame) >= 3 and b" " not in line[2] and self.check_LRC(frame[:-1], frame[-1]):
                return used, frame[0], 0, frame[1:-1]
        return used, 0, 0, self.EMPTY


def wrong(request: Request, answer: ModbusPDU) -> str | None:
    """What is wrong with an answer; sets `code` and `short` of a right one."""
    if not isinstance(answer, Response):
        return f"it is a {type(answer).__name__}"
    if answer.dev_id != request.dev_id:
        return f"it comes from unit {answer.dev_id}"
    if answer.transaction_id != request.transaction_id:
        return f"it belongs to transaction {answer.transaction_id}, not {request.transaction_id}"
    pdu, function = answer.pdu, request.function_code
    if pdu[0] == function | 0x80 and len(pdu) >= 2:
        answer.code = pdu[1]
        return None if answer.code else "it is an exception without a code"
    if pdu[0] != function:
        return f"it has function {pdu[0]}, not {function}"
    return request.judge(answer)
