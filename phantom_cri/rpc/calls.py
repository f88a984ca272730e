"""The wrapper of every RPC: error → code, time, span, log line, ids.

A handler is wrapped once, when the server is created, and not by a grpc interceptor, which costs some 0.03 ms
more per call, since grpc builds a new handler for each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from time import perf_counter
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from phantom_cri.errors import InvalidArgument, PhantomError, Unimplemented
from phantom_cri.telemetry.logs import about, printable
from phantom_cri.telemetry.metrics import Metrics
from phantom_cri.telemetry.tracing import NoTracing, Tracing

log = logging.getLogger(__name__)

GRPC_CODES = {code.name: code for code in grpc.StatusCode}
"""`PhantomError.code` → grpc's status code."""

# A status text is sent in a header, and grpc refuses those over 8 KiB (GRPC_ARG_MAX_METADATA_SIZE). Non-ASCII
# characters are percent-encoded: up to 12 bytes for one character.
LONGEST_PLAIN_TEXT = 6000
LONGEST_TEXT = LONGEST_PLAIN_TEXT // 12

_NO_SPAN = nullcontext()

_EXPECTED = {"NOT_FOUND", "UNIMPLEMENTED", "CANCELLED"}
_UNREADABLE = object()
_OURS = {"INTERNAL", "UNKNOWN", "DATA_LOSS"}

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any], Awaitable[Message | bytes]]
Stream = Callable[[Any], AsyncIterator[Message]]


class Calls:
    """Makes grpc handlers from a servicer: an object with one method per RPC, named as in the .proto.

    A unary method is `async def Name(request) -> response`, a streaming one an async generator.
    An RPC without a method returns UNIMPLEMENTED with its name. A method with a true `answers_bytes` returns
    an encoded response: one of megabytes is better encoded on a thread.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing | NoTracing) -> None:
        self._metrics = metrics
        self._tracing = tracing

    def handler(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler[Any, Any]:
        """All RPCs of `service`; raises ValueError for a public method that is not one of them."""
        surplus = [
            name for name in vars(type(servicer)) if name[0] != "_" and name not in service.methods_by_name
        ]
        if surplus:
            raise ValueError(f"{service.full_name} has no RPC {', '.join(surplus)}")
        methods = {
            method.name: self._method_handler(method, getattr(servicer, method.name, None))
            for method in service.methods
        }
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _method_handler(self, method: MethodDescriptor, verb: Any) -> grpc.RpcMethodHandler[Any, Any]:
        verb = verb or _unimplemented(method)
        decode = _decoder(method)
        encode: Callable[[Any], bytes] = GetMessageClass(method.output_type).SerializeToString
        if getattr(verb, "answers_bytes", False):
            encode = bytes
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, verb), decode, encode)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, verb), decode, encode)

    def _unary(
        self, method: MethodDescriptor, verb: Unary
    ) -> Callable[[Any, Context], Awaitable[Message | bytes]]:
        name, ids_of = method.name, _ids_reader(method)
        traced = not isinstance(self._tracing, NoTracing)

        async def call(request: Any, context: Context) -> Message | bytes:
            began = perf_counter()
            code = "OK"
            try:
                _check_read(request, method)
                sandbox_id, container_id = ids_of(request)
                about(method=name, sandbox_id=sandbox_id, container_id=container_id)
                with self._tracing.call(name, context.invocation_metadata() or ()) if traced else _NO_SPAN:
                    response = await verb(request)
            except BaseException as error:
                code = outcome(error, context)
                await _fail(context, name, code, error)
            finally:
                self._done(name, code, perf_counter() - began)
            return response

        return call

    def _streaming(
        self, method: MethodDescriptor, verb: Stream
    ) -> Callable[[Any, Context], AsyncIterator[Message]]:
        name = method.name

        async def call(request: Any, context: Context) -> AsyncIterator[Message]:
            began = perf_counter()
            code = "OK"
            about(method=name)
            try:
                _check_read(request, method)
                with self._tracing.call(name, context.invocation_metadata() or ()):
                    messages = verb(request)
                    # Now, not with the first message: a stream of events may be silent for hours, and its
                    # client has to know when it is subscribed.
                    await context.send_initial_metadata(())
                    async for message in messages:
                        yield message
            except BaseException as error:
                code = outcome(error, context)
                await _fail(context, name, code, error)
            finally:
                self._done(name, code, perf_counter() - began)

        return call

    def _done(self, name: str, code: str, seconds: float) -> None:
        self._metrics.rpc_done(name, code, seconds)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s in %.3f ms", name, code, seconds * 1000)


def outcome(error: BaseException, context: Context) -> str:
    """The name of the code for an exception; cancelled: the client disconnected or its deadline passed."""
    if isinstance(error, PhantomError):
        return error.code
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "INTERNAL"
    remaining = context.time_remaining()
    return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"


async def _fail(context: Context, name: str, code: str, error: BaseException) -> NoReturn:
    """Log the error once and return it to the client; always raises."""
    if not isinstance(error, Exception):
        raise error
    await context.abort(GRPC_CODES[code], status_text(told(name, code, error)))


def told(name: str, code: str, error: Exception) -> str:
    """What the client of a call gets to read of its failure, which is logged here."""
    if isinstance(error, PhantomError):
        text = str(error) or type(error).__name__
        level = logging.DEBUG if code in _EXPECTED else logging.ERROR if code in _OURS else logging.WARNING
        log.log(level, "%s: %s: %s", name, code, text)
        return text
    # Its text may contain anything, even a password: the client only gets the type.
    log.error("%s: unexpected %s", name, type(error).__name__, exc_info=error)
    return f"{name}: unexpected {type(error).__name__}, see the daemon's log"


def status_text(text: str) -> str:
    """`text` as valid UTF-8, shortened in the middle if it is too long for a gRPC status."""
    text = printable(text)
    plain = text.isascii() and text.isprintable() and "%" not in text
    room = LONGEST_PLAIN_TEXT if plain else LONGEST_TEXT
    half = room // 2
    return text if len(text) <= room else f"{text[: half - 5]} ... {text[-half:]}"


def _decoder(method: MethodDescriptor) -> Callable[[bytes], object]:
    """Decodes in the handler: if a deserializer raises, grpc logs a traceback and returns INTERNAL."""
    decode = GetMessageClass(method.input_type).FromString

    def read(body: bytes) -> object:
        try:
            return decode(body)
        except DecodeError:
            return _UNREADABLE

    return read


def _check_read(request: object, method: MethodDescriptor) -> None:
    if request is _UNREADABLE:
        raise InvalidArgument(f"request: not a valid {method.input_type.full_name}")


def _ids_reader(method: MethodDescriptor) -> Callable[[Any], tuple[str, str]]:
    """Reads the pod's and container's id from a request; the fields are determined once per RPC."""
    fields = method.input_type.fields_by_name
    if "container_id" in fields:
        return lambda request: ("", request.container_id)
    if "pod_sandbox_id" in fields:
        return lambda request: (request.pod_sandbox_id, "")
    return lambda request: ("", "")


def _unimplemented(method: MethodDescriptor) -> Unary | Stream:
    text = f"{method.containing_service.name}.{method.name} is not implemented"

    async def unary(request: Any) -> Message:
        raise Unimplemented(text)

    async def streaming(request: Any) -> AsyncIterator[Message]:
        yield await unary(request)

    return streaming if method.server_streaming else unary
