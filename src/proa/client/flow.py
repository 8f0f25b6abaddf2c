"""Every operation once: flows that say what to send and receive, and the two faces users see them with.

A flow is a generator that yields instructions and gets their results; it does no IO, so it runs under a blocking
transport and under asyncio alike:

    flow                              transport
      yield Exchange(request)   --->    send, read the whole reply         ---> Reply
      yield Open(request)       --->    send, read the head                ---> Channel
      yield Read(channel)       --->    wait for bytes                     ---> bytes, empty at the end
      yield Write(channel, b)   --->    send, taking in what arrives       ---> None
      yield EndInput(channel)   --->    half-close                         ---> None
      yield Item(value)                 (streams) hand a value to the user

`operation` and `stream` turn a flow method of a core class into a method: on a `Blocking` subclass it returns the
result or an iterator, on an `Awaiting` subclass a coroutine or an asynchronous iterator.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

__all__ = [
    "AsyncTransport",
    "Awaiting",
    "Blocking",
    "Channel",
    "EndInput",
    "Exchange",
    "Flow",
    "Instruction",
    "Item",
    "Open",
    "Read",
    "Reply",
    "Request",
    "Stream",
    "Transport",
    "Write",
    "operation",
    "shaped",
    "stream",
]

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")
T_co = TypeVar("T_co", covariant=True)


class Request:
    """What to send; `body` may come in pieces (sent chunked)."""

    __slots__ = ("body", "headers", "method", "target", "upgrade")

    def __init__(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] = b"",
        *,
        headers: tuple[tuple[str, str], ...] = (),
        upgrade: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.body = body
        self.headers = headers
        self.upgrade = upgrade


class Reply:
    """A whole reply."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Channel(Protocol):
    """A connection that carries a stream: the body of a reply, or raw bytes both ways after an upgrade."""

    def close(self) -> None:
        """Close at once; closing twice is fine."""


class Exchange:
    """Send a request and read the whole reply; a status of 400 or more is raised as its error kind."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


class Open:
    """Send a request and read the head of the reply; raises like Exchange."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


class Read:
    """The next bytes of a channel, empty at its end."""

    __slots__ = ("channel",)

    def __init__(self, channel: Channel) -> None:
        self.channel = channel


class Write:
    """Send bytes on an upgraded channel."""

    __slots__ = ("channel", "data")

    def __init__(self, channel: Channel, data: bytes) -> None:
        self.channel = channel
        self.data = data


class EndInput:
    """Say that nothing more will be written."""

    __slots__ = ("channel",)

    def __init__(self, channel: Channel) -> None:
        self.channel = channel


class Item(Generic[T_co]):
    """A value of a stream, for the user."""

    __slots__ = ("value",)

    def __init__(self, value: T_co) -> None:
        self.value = value


Instruction = Exchange | Open | Read | Write | EndInput
Flow = Generator[Instruction, Any, T]
Stream = Generator[Instruction | Item[T], Any, None]


class Transport(Protocol):
    """Performs instructions, blocking."""

    def perform(self, instruction: Instruction) -> Any:
        """The instruction's result. Raises Unavailable, Corrupt, or the error kind the engine answered with."""

    def close(self) -> None:
        """Close idle connections."""


class AsyncTransport(Protocol):
    """Performs instructions in asyncio."""

    async def perform(self, instruction: Instruction) -> Any:
        """As Transport.perform."""

    def close(self) -> None:
        """Close idle connections."""


class Blocking:
    """Face of an object whose operations return when they are done."""

    _transport: Transport


class Awaiting:
    """Face of an object whose operations are awaited."""

    _transport: AsyncTransport


class operation(Generic[P, T]):  # noqa: N801 - used as a decorator
    """A flow method as a method that blocks or is awaited, by the face of the object it is called on."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self.flow = flow
        update_wrapper(self, flow)  # type: ignore[arg-type]

    @overload
    def __get__(self, node: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, node: Blocking, owner: type[Any]) -> Callable[P, T]: ...

    @overload
    def __get__(self, node: Awaiting, owner: type[Any]) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, node: Any, owner: type[Any]) -> Any:
        if node is None:
            return self
        drive = _finish if isinstance(node, Blocking) else _finish_async
        return update_wrapper(partial(_bound, drive, self.flow, node), self.flow)


class stream(Generic[P, T]):  # noqa: N801 - used as a decorator
    """A stream method as one that returns an iterator or an asynchronous iterator."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        self.flow = flow
        update_wrapper(self, flow)  # type: ignore[arg-type]

    @overload
    def __get__(self, node: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, node: Blocking, owner: type[Any]) -> Callable[P, Iterator[T]]: ...

    @overload
    def __get__(self, node: Awaiting, owner: type[Any]) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, node: Any, owner: type[Any]) -> Any:
        if node is None:
            return self
        drive = _iterate if isinstance(node, Blocking) else _iterate_async
        return update_wrapper(partial(_bound, drive, self.flow, node), self.flow)


def shaped(build: Callable[P, D], act: Callable[[Any, D], Flow[T]], doc: str) -> operation[P, T]:
    """An operation whose parameters are those of `build`, and whose flow is `act` with what `build` made of them."""

    def flow(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        return (yield from act(self, build(*args, **kwargs)))

    update_wrapper(flow, build)
    flow.__doc__ = f"{doc}\n\n{build.__doc__}"
    return operation(flow)


def _bound(drive: Callable[..., Any], flow: Callable[..., Any], node: Any, /, *args: Any, **kwargs: Any) -> Any:
    return drive(node._transport, flow(node, *args, **kwargs))


def _finish(transport: Transport, flow: Flow[T]) -> T:
    step: Callable[..., Instruction] = flow.send
    value: Any = None
    while True:
        try:
            instruction = step(value)
        except StopIteration as done:
            result: T = done.value
            return result
        try:
            value = transport.perform(instruction)
        except BaseException as error:  # noqa: BLE001 - the flow decides what it means
            value, step = error, flow.throw
        else:
            step = flow.send


async def _finish_async(transport: AsyncTransport, flow: Flow[T]) -> T:
    step: Callable[..., Instruction] = flow.send
    value: Any = None
    while True:
        try:
            instruction = step(value)
        except StopIteration as done:
            result: T = done.value
            return result
        try:
            value = await transport.perform(instruction)
        except BaseException as error:  # noqa: BLE001 - the flow decides what it means
            value, step = error, flow.throw
        else:
            step = flow.send


def _iterate(transport: Transport, flow: Stream[T]) -> Iterator[T]:
    step: Callable[..., Instruction | Item[T]] = flow.send
    value: Any = None
    try:
        while True:
            try:
                instruction = step(value)
            except StopIteration:
                return
            value, step = None, flow.send
            if isinstance(instruction, Item):
                yield instruction.value
                continue
            try:
                value = transport.perform(instruction)
            except BaseException as error:  # noqa: BLE001 - the flow decides what it means
                value, step = error, flow.throw
    finally:
        flow.close()


async def _iterate_async(transport: AsyncTransport, flow: Stream[T]) -> AsyncIterator[T]:
    step: Callable[..., Instruction | Item[T]] = flow.send
    value: Any = None
    try:
        while True:
            try:
                instruction = step(value)
            except StopIteration:
                return
            value, step = None, flow.send
            if isinstance(instruction, Item):
                yield instruction.value
                continue
            try:
                value = await transport.perform(instruction)
            except BaseException as error:  # noqa: BLE001 - the flow decides what it means
                value, step = error, flow.throw
    finally:
        flow.close()
