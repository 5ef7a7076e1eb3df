"""Visitors without a browser: what pages that are open elsewhere cost the server.

    python -m benchmarks.visitors URL [--count 10]

Each opens the page over Streamlit's own WebSocket, as a browser does, has the parts that draw
themselves anew do so, asks the feed of an open run for news as often as it is told to, and throws
away what it is sent (but names the messages that a browser would have kept). So a class can be
counted on the computer that trains without its thirty browsers. Prints a line when all pages have
been drawn, then goes on until it is ended; a page that shows an exception ends it with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import urllib.request
from urllib.parse import urlsplit

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

LARGEST = 200_000_000  # bytes of a message, as many as Streamlit sends at most


class Visitor:
    """One open page.

    Attributes:
        drawn: set when its script has ended for the first time.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        folder, _, self._page = parts.path.rpartition("/")
        self._query, self._page_hash = parts.query, ""
        self._stream = f"ws://{parts.netloc}{folder}/_stcore/stream"
        self._server = f"http://{parts.netloc}"
        self._fragments: list[asyncio.Task[None]] = []
        self._kept: set[str] = set()
        self.drawn = asyncio.Event()

    async def visit(self) -> None:
        """Keep the page open until cancelled.

        Raises:
            RuntimeError: if it shows an exception, or the server ends.
        """
        async with websockets.connect(self._stream, max_size=LARGEST, compression=None) as socket:
            self._socket = socket
            await self._ask()
            async for data in socket:
                message = ForwardMsg()
                message.ParseFromString(data)
                self._receive(message)
        raise RuntimeError("the server has closed the page")

    def _receive(self, message: ForwardMsg) -> None:
        if message.metadata.cacheable:
            self._kept.add(message.hash)
        kind = message.WhichOneof("type")
        if kind == "new_session" and not message.metadata.run.fragment_ids:
            for task in self._fragments:  # the page is drawn as a whole: its parts start afresh
                task.cancel()
            self._fragments.clear()
            self._page_hash = message.new_session.page_script_hash
        elif kind == "auto_rerun":
            again = message.auto_rerun
            self._fragments.append(
                asyncio.create_task(self._repeat(again.fragment_id, again.interval))
            )
        elif kind == "delta" and (feed := _feed(message)):
            self._fragments.append(asyncio.create_task(self._follow(feed)))
        elif kind == "script_finished":
            self.drawn.set()
        elif kind == "delta" and message.delta.new_element.WhichOneof("type") == "exception":
            raise RuntimeError(f"the page shows: {message.delta.new_element.exception.message}")

    async def _follow(self, feed: dict[str, str]) -> None:
        serial = feed["serial"]
        while True:
            url = f"{self._server}{feed['url']}&since={serial}"
            answer = json.loads(await asyncio.to_thread(_read, url))
            serial = answer["serial"]
            await asyncio.sleep(answer["pause"])

    async def _repeat(self, fragment: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._ask(fragment)

    async def _ask(self, fragment: str = "") -> None:
        message = BackMsg()
        rerun = message.rerun_script
        rerun.query_string = self._query
        rerun.page_name = "" if self._page_hash else self._page
        rerun.page_script_hash = self._page_hash
        rerun.fragment_id, rerun.is_auto_rerun = fragment, bool(fragment)
        rerun.cached_message_hashes.extend(self._kept)
        rerun.context_info.timezone = "UTC"
        await self._socket.send(message.SerializeToString())


def _feed(message: ForwardMsg) -> dict[str, str] | None:
    """What `components.follow` was given, if this puts one on the page."""
    component = message.delta.new_element.bidi_component
    if component.component_name != "nin_follow":
        return None
    return dict(json.loads(component.json))


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        return bytes(response.read())


async def _visit(url: str, count: int) -> None:
    visitors = [Visitor(url) for _ in range(count)]
    async with asyncio.TaskGroup() as tasks:
        for visitor in visitors:
            tasks.create_task(visitor.visit())
        for visitor in visitors:
            await visitor.drawn.wait()
        print(f"{count} open", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", help="of a page, e.g. http://192.168.0.5:8501/training?run=5")
    parser.add_argument("--count", type=int, default=10, help="of pages (10)")
    args = parser.parse_args()
    asyncio.run(_visit(args.url, args.count))


if __name__ == "__main__":
    main()
